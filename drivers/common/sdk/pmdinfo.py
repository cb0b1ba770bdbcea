#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Write the C file that makes a driver visible to dpdk-pmdinfo.py.

usage: pmdinfo.py OUTPUT.c INPUT...      (objects, or archives of objects, thin ones too)

RTE_PMD_REGISTER_VDEV and its kin leave symbols behind: this_pmd_name<something> holds a driver's
name, __<name>_param_string_export its device arguments, __<name>_kmod_dep_export the kernel modules
it needs and __<name>_pci_tbl_export the name of its table of struct rte_pci_id. dpdk-pmdinfo.py
wants them as JSON.
"""

import io
import json
import os
import struct
import sys

from elftools.elf.elffile import ELFFile


def objects(path):
    """Yield every ELF object in a file: itself, or the members of an archive."""
    with open(path, "rb") as file:
        data = file.read()
    if data[:8] not in (b"!<arch>\n", b"!<thin>\n"):
        yield data
        return
    thin, names, pos = data[:8] == b"!<thin>\n", b"", 8
    while pos + 60 <= len(data):
        name, size = data[pos:pos + 16].rstrip(), int(data[pos + 48:pos + 58])
        index = name in (b"/", b"//", b"/SYM64/")
        pos += 60
        body = data[pos:pos + size]
        if name == b"//":
            names = body
        elif thin and not index:
            member = names[int(name[1:]):].split(b"/\n")[0].decode()
            yield from objects(os.path.join(os.path.dirname(path), member))
        elif body[:4] == b"\x7fELF":
            yield body
        if index or not thin:
            pos += size + size % 2


def symbols(elf):
    """Map the name of each data symbol to its bytes."""
    table = elf.get_section_by_name(".symtab")
    found = {}
    for symbol in table.iter_symbols() if table else ():
        section, start = symbol["st_shndx"], symbol["st_value"]
        if symbol["st_info"]["type"] == "STT_OBJECT" and isinstance(section, int):
            data = elf.get_section(section).data()
            found[symbol.name] = data[start:start + symbol["st_size"]]
    return found


def text(data):
    """Decode a C string."""
    return data.split(b"\0")[0].decode()


def pci_ids(table, little):
    """List [vendor, device, subsystem vendor, subsystem device] up to the all-zero row."""
    ids = []
    for _, *row in struct.iter_unpack(("<" if little else ">") + "IHHHH", table):
        if not any(row):
            break
        ids.append(row)
    return ids


def drivers(inputs):
    """Yield what dpdk-pmdinfo.py shows of each driver in some objects; one may be in several."""
    syms, little = {}, True
    for data in (data for path in inputs for data in objects(path)):
        elf = ELFFile(io.BytesIO(data))
        syms.update(symbols(elf))
        little = elf.little_endian
    names = [text(value) for key, value in syms.items() if key.startswith("this_pmd_name")]
    for name in sorted(names):
        info = {"name": name}
        for key, suffix in (("params", "param_string"), ("kmod", "kmod_dep")):
            value = syms.get(f"__{name}_{suffix}_export")
            if value is not None:
                info[key] = text(value)
        table = syms.get(f"__{name}_pci_tbl_export")
        info["pci_ids"] = pci_ids(syms[text(table)], little) if table else []
        yield info


def main():
    output, *inputs = sys.argv[1:]
    found = list(drivers(inputs))
    if not found:
        sys.exit(f"pmdinfo.py: no driver in {' '.join(inputs)}")
    with open(output, "w", encoding="ascii") as file:
        for info in found:
            # JSON text is ASCII without control characters, so quoting it once more makes a C
            # literal. The NUL parts it from constants before it: dpdk-pmdinfo.py wants it at the
            # start of a string.
            literal = json.dumps("PMD_INFO_STRING= " + json.dumps(info))
            symbol = f"{info['name']}_pmd_info"
            file.write(f'const char {symbol}[] __attribute__((used)) =\n\t"\\0" {literal};\n')


if __name__ == "__main__":
    main()
