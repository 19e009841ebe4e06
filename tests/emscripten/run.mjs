// Runs the tests on CPython for WebAssembly: node run.mjs <folder of installed packages> <folder of the tests>
import { loadPyodide } from "pyodide";

const [packages, checkout] = process.argv.slice(2);
const python = await loadPyodide({ env: { HOME: "/tmp", PYTHONDONTWRITEBYTECODE: "1" } });
python.mountNodeFS("/packages", packages);
python.mountNodeFS("/checkout", checkout);
try {
  process.exitCode = python.runPython(`
import os, sys
os.chdir("/checkout")
sys.path[:0] = ["/checkout", "/packages"]
from tests.emscripten.run import main
main()
`);
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
}
