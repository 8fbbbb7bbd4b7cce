// Runs the module in Node and prints its output: node run.mjs MODULE
import { readFileSync } from "node:fs";

const module = new WebAssembly.Module(readFileSync(process.argv[2]));
const imports = WebAssembly.Module.imports(module);
if (imports.length > 0) {
  console.error("the module imports", imports);
  process.exit(2);
}
const { run, text, len, memory } = new WebAssembly.Instance(module, {}).exports;
const output = () => new TextDecoder().decode(new Uint8Array(memory.buffer, text(), len()));
try {
  run();
} catch (trap) {
  console.error(output(), trap);
  process.exit(1);
}
process.stdout.write(output());
