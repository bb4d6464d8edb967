// Bundles test files, so that each loads a few files instead of hundreds, none of which has to be translated. This halves
// the time of the fast tests, and takes a fifth off all.
import { existsSync, mkdirSync, mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { pathToFileURL } from "node:url";
import { build } from "esbuild";
import { THREADS } from "./bundling.mjs";
import { BUNDLES } from "./test-file.mjs";

/** Modules still find files beside their sources; those that start threads find the bundles of these in `folder`. */
const places = (folder) => ({
  name: "places",
  setup({ onLoad }) {
    onLoad({ filter: /\.ts$/ }, ({ path }) => {
      const contents = readFileSync(path, "utf8");
      const place = contents.includes("startThread({") ? join(folder, "threads", "caller.js") : path;
      return {
        contents: contents
          .replaceAll("import.meta.url", JSON.stringify(pathToFileURL(place).href))
          .replaceAll("import.meta.dirname", JSON.stringify(dirname(path))),
        loader: "ts",
      };
    });
  },
});

/** Returns a new folder under node_modules/, from which packages are found, and the bundle of each file in it. */
export async function bundleTests(root, files) {
  const cache = join(root, "node_modules", ".cache");
  mkdirSync(cache, { recursive: true });
  const folder = mkdtempSync(join(cache, BUNDLES));
  await build({
    entryPoints: [
      ...files.map((file) => ({ in: join(root, file), out: file.replace(/\.ts$/, "") })),
      ...THREADS.filter(({ source }) => existsSync(join(root, source))).map(({ source, built }) => ({
        in: join(root, source),
        out: `threads/${built}`,
      })),
    ],
    outdir: folder,
    absWorkingDir: root,
    bundle: true,
    splitting: true,
    chunkNames: "chunks/[name]-[hash]",
    format: "esm",
    platform: "node",
    target: "node20.19",
    packages: "external",
    sourcemap: true,
    // Node reads the maps of all it loads, and the sources are at hand.
    sourcesContent: false,
    logLevel: "error",
    plugins: [places(folder)],
  });
  return { folder, files: new Map(files.map((file) => [file, join(folder, file).replace(/ts$/, "js")])) };
}

/** Hooks outside a suite are for all tests of a process. */
const HOOKS_FOR_ALL = /^(?:before|after|beforeEach|afterEach)\(/m;
/** Changes to what a process has once. */
const CHANGES_PROCESS = /\bmock\.|process\.(?:env\[[^\]]+\] = |chdir|umask|on\()/;

/** With --test-force-exit, a process that ends at once takes the last results along. */
const UNTIL_REPORTED = `import { after } from "node:test";\nafter(() => new Promise((done) => setTimeout(done, 50)));\n`;

/**
 * Files that each run the tests of several bundles of a folder, one after the other: half of the time of a short test
 * file is the start of its process. A test file that would disturb others has a process of its own.
 */
export function groupBundles(root, bundle, sizeMax) {
  const groups = [];
  let [current, currentRoom] = [[], ""];
  for (const [file, path] of bundle.files) {
    const text = readFileSync(join(root, file), "utf8");
    const room = file.split("/")[1];
    if (HOOKS_FOR_ALL.test(text) || CHANGES_PROCESS.test(text)) {
      groups.push([path]);
    } else if (room === currentRoom && current.length < sizeMax) {
      current.push(path);
    } else {
      current = [path];
      currentRoom = room;
      groups.push(current);
    }
  }
  return groups.map((paths, i) => {
    if (paths.length === 1) return paths[0];
    const group = join(bundle.folder, `group-${i}.js`);
    const imports = paths.map((path) => `import "./${relative(bundle.folder, path)}";\n`);
    writeFileSync(group, imports.join("") + UNTIL_REPORTED);
    return group;
  });
}
