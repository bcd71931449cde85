"""Vectors of a corpus of any size, into a file or a folder of shards, in bounded memory.

A run can be resumed: whenever the process ends, no row in the output is torn, duplicated or lost.
Rows go to a journal next to the output (journal.py). The output is written from it at the end, or shard by shard.

workspace.py    OUTPUT.part, the folder of unfinished work, and who may own it
journal.py      the rows and the state in that folder, and their checksums
fingerprint.py  what a resumed run must share with the unfinished one
job.py          one run: reading, computing and writing at the same time
lock.py         a lock that one process at a time holds
"""

import warnings

from .. import files
from ..encoder import Encoder
from ..engine import EncodeOptions, truncation_message
from . import journal
from .fingerprint import check_fingerprint, digest_model_files, fingerprint
from .job import CorpusReport, Job, choose_window, skip_finished
from .journal import State
from .workspace import Workspace, is_folder, open_workspace

__all__ = [
    "CorpusReport",
    "Workspace",
    "embed_corpus",
    "is_folder",
    "open_workspace",
]


def embed_corpus(
    encoder: Encoder, texts: files.Texts, work: Workspace, report: CorpusReport, asked: EncodeOptions, precision: str = "float32"
) -> None:
    """Write the vectors of all texts to the output. After a failure finished rows stay in `work.folder`; the next run resumes.

    Raises UserError if a text cannot be read or encoded, or if the finished texts, the model or the options differ from those
    of the unfinished work; OSError if a file cannot be read or written.
    """
    digests = digest_model_files(encoder.checkpoint, work.state.model_files if work.state else {})
    made = fingerprint(encoder, asked, precision, digests)
    state = work.state or State(made, choose_window(encoder), encoder.device, texts.size)
    check_fingerprint(state.made_with, made, work.folder)
    state.model_files = digests
    stream = iter(texts)
    skip_finished(stream, state, work.folder)
    if work.state is not None:
        report.say(f"resuming after {state.rows:,} texts")
        if state.input_size != texts.size:
            report.say(
                f"the input has {texts.size:,} bytes and had {state.input_size:,}: the finished texts are the same in both"
            )
        if state.device != encoder.device:
            report.say(f"the finished texts were computed on {state.device}, the others are computed on {encoder.device}")
    state.device, state.input_size = encoder.device, texts.size
    job = Job(encoder, work, state, report)
    with files.name_output(work.path, *(work.folder / name for name in (journal.VECTORS, journal.TEXTS, journal.NEW_STATE))):
        job.run(stream, texts, asked)
    if state.cut:
        warnings.warn(truncation_message(state.cut, state.rows, encoder.max_seq_length), UserWarning, stacklevel=2)
    journal.remove_journal(work.folder)
