//! Files that are broken in ways that a parser does not catch: fields are changed, doubled, lost,
//! moved from one place to another, and everything around them is still well-formed. Plain damage
//! to bytes as well.

use crate::wire::{Body, Field, read, write};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use sandpiper_compiler::{Options, compile};
use sandpiper_sandbox::{Origin, host_target, precompile};
use std::panic::catch_unwind;

/// Integers at which programs go wrong: ends of types, element types, sizes.
const INTEGERS: [u64; 22] = [
    0,
    1,
    2,
    3,
    6,
    7,
    9,
    10,
    16,
    64,
    127,
    128,
    255,
    4096,
    65535,
    1 << 20,
    i32::MAX as u64,
    u32::MAX as u64,
    i64::MAX as u64,
    i64::MIN as u64,
    u64::MAX,
    u64::MAX - 1,
];

/// Floats at which they do.
const FLOATS: [f32; 8] = [
    0.0,
    -0.0,
    1.0,
    f32::NAN,
    f32::INFINITY,
    f32::NEG_INFINITY,
    1e38,
    1e-45,
];

/// Holds the compiler to its promise on any bytes: a message, or a module that keeps the ABI and can be
/// made native. Gives whether there is a module.
///
/// # Errors
/// What became of it instead.
pub fn outcome(onnx: &[u8]) -> Result<bool, String> {
    // A panic is a finding, and must not end the search.
    let compiled = catch_unwind(|| compile(onnx, &Options::default()));
    let Ok(compiled) = compiled.map_err(|_| "it panicked")? else {
        return Ok(false);
    };
    let origin = Origin::OwnCompiler;
    match precompile(&compiled.wasm, host_target(), origin) {
        Ok(_) => Ok(true),
        Err(error) => Err(format!("the sandbox refuses the module: {error}")),
    }
}

/// A file with a few faults, from a seed.
pub fn damaged(onnx: &[u8], seed: u64) -> Vec<u8> {
    let mut dice = StdRng::seed_from_u64(seed);
    let faults = dice.random_range(1..=4);
    let mut bytes = onnx.to_vec();
    for _ in 0..faults {
        match read(&bytes) {
            Some(mut fields) if dice.random_bool(0.85) => {
                fault(&mut fields, &mut dice);
                bytes = write(&fields);
            }
            _ => plain(&mut bytes, &mut dice),
        }
    }
    bytes
}

/// One fault in one message of the tree.
fn fault(fields: &mut Vec<Field>, dice: &mut StdRng) {
    let all = messages(fields);
    let chosen = dice.random_range(0..all);
    let donor = nth(fields, dice.random_range(0..all)).cloned();
    let Some(message) = nth(fields, chosen) else {
        return;
    };
    if message.is_empty() {
        message.extend(donor.unwrap_or_default().into_iter().take(1));
        return;
    }
    let place = dice.random_range(0..message.len());
    match dice.random_range(0..10) {
        0 => drop(message.remove(place)),
        1 => message.push(message[place].clone()),
        2 => {
            let other = dice.random_range(0..message.len());
            message.swap(place, other);
        }
        3 => {
            // A field of another message, under the number of this one.
            let donor = donor.unwrap_or_default();
            if !donor.is_empty() {
                message[place].body = donor[dice.random_range(0..donor.len())].body.clone();
            }
        }
        4 => message[place].number = dice.random_range(1..=20),
        _ => change(&mut message[place].body, dice),
    }
}

/// The number of messages in the tree, with the outermost.
fn messages(fields: &[Field]) -> usize {
    let inner = fields.iter().map(|f| match &f.body {
        Body::Message(inner) => messages(inner),
        _ => 0,
    });
    1 + inner.sum::<usize>()
}

/// A message of the tree, counted from the outermost.
fn nth(fields: &mut Vec<Field>, mut index: usize) -> Option<&mut Vec<Field>> {
    if index == 0 {
        return Some(fields);
    }
    index -= 1;
    for field in fields {
        if let Body::Message(inner) = &mut field.body {
            let size = messages(inner);
            if index < size {
                return nth(inner, index);
            }
            index -= size;
        }
    }
    None
}

fn change(body: &mut Body, dice: &mut StdRng) {
    match body {
        Body::Varint(value) => {
            *value = match dice.random_range(0..4) {
                0 => value.wrapping_add(1),
                1 => value.wrapping_sub(1),
                _ => INTEGERS[dice.random_range(0..INTEGERS.len())],
            };
        }
        Body::Fixed32(bytes) => {
            *bytes = FLOATS[dice.random_range(0..FLOATS.len())].to_le_bytes();
        }
        Body::Fixed64(bytes) => *bytes = dice.random_range(0..=u64::MAX).to_le_bytes(),
        Body::Bytes(bytes) => match dice.random_range(0..4) {
            0 => bytes.clear(),
            1 => bytes.truncate(bytes.len() / 2),
            2 => bytes.extend_from_slice(&bytes.clone()),
            _ => plain(bytes, dice),
        },
        // What looks like a message may be a name or an operator: another one then.
        Body::Message(inner) => *body = Body::Bytes(write(&inner[..inner.len() / 2])),
    }
}

/// Damage to bytes as they are.
fn plain(bytes: &mut Vec<u8>, dice: &mut StdRng) {
    if bytes.is_empty() {
        bytes.push(dice.random_range(0..=255));
        return;
    }
    let place = dice.random_range(0..bytes.len());
    match dice.random_range(0..8) {
        0 => bytes.truncate(place),
        1 => drop(bytes.remove(place)),
        2 => bytes.insert(place, dice.random_range(0..=255)),
        _ => bytes[place] = dice.random_range(0..=255),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_damage_and_another_seed_another() {
        let onnx = crate::grow::network(1).onnx();
        assert_eq!(damaged(&onnx, 5), damaged(&onnx, 5));
        let distinct: std::collections::BTreeSet<_> = (0..100).map(|s| damaged(&onnx, s)).collect();
        assert!(distinct.len() > 80, "{}", distinct.len());
    }
}
