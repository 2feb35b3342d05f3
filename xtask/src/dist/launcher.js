#!/usr/bin/env node
// Starts the program of this platform, which is in an optional dependency, and ends as it ends.
"use strict";

const { spawn } = require("node:child_process");
const { constants } = require("node:os");

const name = `greenwave-${process.platform}-${process.arch}`;
let program;
try {
  program = require.resolve(`${name}/bin/greenwave`);
} catch {
  console.error(`error: the package ${name} is not installed`);
  console.error("hint: install without --omit=optional, or build with `cargo install greenwave-cli`");
  process.exit(2);
}

const child = spawn(program, process.argv.slice(2), { stdio: "inherit" });
child.on("error", (error) => {
  console.error(`error: cannot start ${program}: ${error.message}`);
  process.exit(2);
});
// A terminal sends SIGINT to the program as well, which ends by itself.
process.on("SIGINT", () => {});
for (const signal of ["SIGTERM", "SIGHUP"]) {
  process.on(signal, () => child.kill(signal));
}
child.on("exit", (code, signal) => process.exit(code ?? 128 + constants.signals[signal]));
