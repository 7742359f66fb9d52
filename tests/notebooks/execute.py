"""Execute a notebook: ``python execute.py notebook.ipynb executed.ipynb``.

A program of its own, because Jupyter's client keeps threads and sockets until its process ends.
"""

import sys
from pathlib import Path

import nbformat
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient


class ThisPython(AsyncKernelManager):
    """A kernel of the interpreter that runs this, whatever kernels are registered on the machine."""

    @property
    def kernel_spec(self):
        command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=command, display_name="this Python", language="python")


if __name__ == "__main__":
    source, target = map(Path, sys.argv[1:])
    notebook = nbformat.read(source, as_version=4)
    resources = {"metadata": {"path": str(source.parent)}}
    NotebookClient(
        notebook, kernel_manager_class=ThisPython, timeout=240, record_timing=False, resources=resources
    ).execute()
    nbformat.write(notebook, target)
