//! Tests of private items: whole runs of the engine with simulated agents and tests.

mod simulation;
