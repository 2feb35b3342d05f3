//! Tests that need private items: the engine run as a whole, with agents and tests that are values.

mod simulation;
