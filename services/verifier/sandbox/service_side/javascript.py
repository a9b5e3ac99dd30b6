"""JavaScript programs: how node runs one inside the jail."""

from dataclasses import replace

from services.verifier.sandbox.sandbox import Limits, Program, Role

# Reads the program at the offset of descriptor 3, and runs it as the main module.
_LOADER = """
const fs = require("fs"), Module = require("module");
const parts = [];
for (let part = Buffer.alloc(65536), n; (n = fs.readSync(3, part, 0, part.length, null)) > 0;)
  parts.push(Buffer.from(part.subarray(0, n)));
fs.closeSync(3);
delete process.execve;
const main = new Module("solution.js", null);
main.filename = "solution.js";
main.paths = [];
process.mainModule = main;
process.argv.splice(1, 0, "solution.js");
main._compile(Buffer.concat(parts).toString(), "solution.js");
""".replace("\n", " ")

# Address space that node reserves and does not use.
_RESERVED_BYTES = 1 << 30


def javascript_program(node: str, source: bytes, limits: Limits) -> tuple[Program, Limits]:
    """The program, and limits in which node's heap may take `limits.memory_bytes`.

    It is interpreted, never compiled, and loads no native code: what it prints is a file that could be loaded.
    """
    heap = f"--max-old-space-size={max(16, limits.memory_bytes >> 20)}"
    command = (node, "--jitless", "--no-addons", "--no-expose-wasm", "--openssl-config=/dev/null", heap, "-e", _LOADER)
    program = Program(source, Role.COMMAND, command=command)
    return program, replace(limits, memory_bytes=limits.memory_bytes + _RESERVED_BYTES)
