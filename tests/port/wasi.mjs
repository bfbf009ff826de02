// Run a WASI program under node: node wasi.mjs PROGRAM DIRECTORY ARGUMENT...
// It sees DIRECTORY, as /tmp, and the directory in which it is started (golden files).
import { readFile } from "node:fs/promises";
import { WASI } from "node:wasi";

const [program, directory, ...args] = process.argv.slice(2);
const env = { KV_TEST_DIR: "/tmp" };
for (const name of ["KV_TEST_SEED", "KV_TEST_SCALE"]) if (process.env[name]) env[name] = process.env[name];
const wasi = new WASI({ version: "preview1", args: [program, ...args], env, preopens: { "/tmp": directory, ".": process.cwd() }, returnOnExit: true });
const module = await WebAssembly.compile(await readFile(program));
process.exitCode = wasi.start(await WebAssembly.instantiate(module, { wasi_snapshot_preview1: wasi.wasiImport }));
