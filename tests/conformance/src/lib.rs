//! Real models and data through compiler and sandbox, against reference results.
