"""JavaScript programs: what node is told so that it runs one inside the jail."""

from services.verifier.sandbox.sandbox import Program, Role

# Reads the program from where descriptor 3 stands, and runs it as the main module.
_LOADER = """
const fs = require("fs"), Module = require("module");
const parts = [];
for (let part = Buffer.alloc(65536), n; (n = fs.readSync(3, part, 0, part.length, null)) > 0;)
  parts.push(Buffer.from(part.subarray(0, n)));
fs.closeSync(3);
const main = new Module("solution.js", null);
main.filename = "solution.js";
main.paths = [];
process.mainModule = main;
process.argv.splice(1, 0, "solution.js");
main._compile(Buffer.concat(parts).toString(), "solution.js");
""".replace("\n", " ")

# Node reserves address space that it does not use; the heap is what its memory limit is about.
RESERVED_BYTES = 1 << 30


def javascript(node: str, source: bytes, memory_bytes: int) -> Program:
    """The program. Interpreted only: the jail allows no memory that is both written and run."""
    heap = f"--max-old-space-size={max(16, memory_bytes >> 20)}"
    command = (node, "--jitless", "--no-expose-wasm", heap, "-e", _LOADER)
    return Program(source, Role.COMMAND, command=command)
