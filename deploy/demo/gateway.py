"""A mail gateway: tells by its content what an attached file is, with the model that is active.

    python deploy/demo/gateway.py FILE…        one JSON line a file

All that it knows of Sealift is the block that begins with `app.use`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from sealift import app

THRESHOLD = 0.5
"""A file that is recognised with less than this is put into quarantine."""


class Classifier:
    """A model of the magika family, with the configuration that came in the same release."""

    def __init__(self, model: Path, config: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            str(model), options, providers=["CPUExecutionProvider"]
        )
        self._config: dict[str, Any] = json.loads(config.read_bytes())

    def classify(self, content: bytes) -> tuple[str, float]:
        """The likeliest kind of a file, and how likely it is."""
        outputs: Any = self._session.run(None, {"bytes": self._features(content)})
        scores = outputs[0][0]
        best = int(scores.argmax())
        return self._config["target_labels_space"][best], float(scores[best])

    def _features(self, content: bytes) -> Any:
        """Beginning and end of the content, stripped and padded: the model's own convention."""
        config = self._config
        begin, end, padding = config["beg_size"], config["end_size"], config["padding_token"]
        head = list(content[: config["block_size"]].lstrip()[:begin])
        tail = list(content[-config["block_size"] :].rstrip()[-end:])
        row = head + [padding] * (begin - len(head)) + [padding] * (end - len(tail)) + tail
        return np.array([row], np.int32)


def main() -> None:
    """Classifies the files that the command line names."""
    with (
        app.use("acme/file-types", ">=3,<4") as model,
        app.use("acme/triage-prompts") as prompts,
    ):
        classifier = Classifier(model.path("model.onnx"), model.path("config.min.json"))
        task = json.loads(prompts.path("en.json").read_bytes())["slices"]["task"]
        for name in sys.argv[1:]:
            kind, score = classifier.classify(Path(name).read_bytes())
            verdict = "delivered" if score >= THRESHOLD else "quarantined"
            said = {"file": Path(name).name, "kind": kind, "score": score, "verdict": verdict}
            said |= {"model": model.version, "prompts": prompts.version}
            said |= {"prompt": task.format(input=f"look at {Path(name).name}").strip()}
            print(json.dumps(said))


if __name__ == "__main__":
    main()
