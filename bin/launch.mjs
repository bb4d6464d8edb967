// Runs a program of dist/. The files beside this one are its launchers; they work through symbolic links too,
// because Node resolves those before it runs a file.
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";

const NODE_MIN = [20, 19];

export async function launch(program) {
  const [major, minor] = process.versions.node.split(".").map(Number);
  if (major < NODE_MIN[0] || (major === NODE_MIN[0] && minor < NODE_MIN[1])) {
    fail(`${program} needs Node ${NODE_MIN.join(".")} or later, this is ${process.versions.node}`);
  }
  const url = new URL(`../dist/${program}.js`, import.meta.url);
  if (!existsSync(url)) {
    const root = fileURLToPath(new URL("..", import.meta.url));
    fail(`${program} is not built: run "npm install && npm run build" in ${root}`);
  }
  const { main } = await import(url.href);
  const code = await main(process.argv.slice(2), process.env);
  if (code !== undefined) process.exitCode = code;
}

function fail(message) {
  process.stderr.write(`${message}\n`);
  process.exit(1);
}
