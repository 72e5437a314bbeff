;; The module of vibration.rs in the text form of wasm: what a compiler of any language has to give.
(module
  (@custom "sandpiper.abi" "{\"abi\":1,\"inputs\":[{\"name\":\"samples\",\"dtype\":\"f32\",\"dims\":[\"batch\",{\"fixed\":256}],\"offset\":32768}],\"outputs\":[{\"name\":\"features\",\"dtype\":\"f32\",\"dims\":[\"batch\",{\"fixed\":3}],\"offset\":49152}],\"max_batch\":8,\"memory_bytes\":65536,\"weights\":null,\"bounded\":false}")

  ;; Minimum = maximum = memory_bytes of the ABI.
  (memory (export "memory") 1 1)

  (func (export "infer") (param $batch i32) (result i32)
    (local $in i32) (local $out i32) (local $end i32)
    (if (i32.gt_u (local.get $batch) (i32.const 8))
      (then (return (i32.const 1))))
    (local.set $in (i32.const 32768))
    (local.set $out (i32.const 49152))
    (local.set $end (i32.add (i32.const 32768) (i32.shl (local.get $batch) (i32.const 10))))
    (loop $next
      (call $vibration (local.get $in) (local.get $out))
      (local.set $in (i32.add (local.get $in) (i32.const 1024)))
      (local.set $out (i32.add (local.get $out) (i32.const 12)))
      (br_if $next (i32.lt_u (local.get $in) (local.get $end))))
    (i32.const 0))

  ;; Features of the 256 samples at $in, written to $out.
  (func $vibration (param $in i32) (param $out i32)
    (local $i i32) (local $sum f32) (local $mean f32) (local $far f32) (local $squares f32) (local $peak f32)
    (loop $next
      (local.set $sum
        (f32.add (local.get $sum) (f32.load (i32.add (local.get $in) (local.get $i)))))
      (local.set $i (i32.add (local.get $i) (i32.const 4)))
      (br_if $next (i32.lt_u (local.get $i) (i32.const 1024))))
    (local.set $mean (f32.div (local.get $sum) (f32.const 256)))
    (local.set $i (i32.const 0))
    (loop $next
      (local.set $far
        (f32.sub (f32.load (i32.add (local.get $in) (local.get $i))) (local.get $mean)))
      (local.set $squares
        (f32.add (local.get $squares) (f32.mul (local.get $far) (local.get $far))))
      (local.set $peak (f32.max (local.get $peak) (f32.abs (local.get $far))))
      (local.set $i (i32.add (local.get $i) (i32.const 4)))
      (br_if $next (i32.lt_u (local.get $i) (i32.const 1024))))
    (f32.store (local.get $out) (local.get $mean))
    (f32.store offset=4 (local.get $out) (f32.div (local.get $squares) (f32.const 256)))
    (f32.store offset=8 (local.get $out) (local.get $peak))))
