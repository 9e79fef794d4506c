"""The packages of the runtime `data` with their versions, for `GET /runtimes`. Part of `make lock`.

The API has a copy, because the functions on Lambda do not contain infra/.
"""

import json
import re
from typing import Final

from infra.images.data_image import REQUIREMENTS
from infra.paths import LAMBDA_APP

COPY: Final = LAMBDA_APP / "chalicelib/api/packages.json"


def locked_packages() -> dict[str, str]:
    """Return the version of each package in the image, by name."""
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", REQUIREMENTS.read_text(), re.MULTILINE))


if __name__ == "__main__":
    COPY.write_text(json.dumps({"data": locked_packages()}, indent=1) + "\n")
