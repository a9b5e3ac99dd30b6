"""Parts rendered files by who has their schemas: `kinds.py core FILE` prints YAML, `kinds.py custom FILE…` JSON."""

import json
import sys
from pathlib import Path

import yaml

CUSTOM = ("keda.sh/", "monitoring.coreos.com/")

if __name__ == "__main__":
    objects = [one for path in sys.argv[2:] for one in yaml.safe_load_all(Path(path).read_text(encoding="utf-8"))]
    custom = [one for one in objects if one["apiVersion"].startswith(CUSTOM)]
    if sys.argv[1] == "custom":
        print(json.dumps(custom))
    else:
        print(yaml.safe_dump_all(one for one in objects if one not in custom))
