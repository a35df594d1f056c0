"""Others' JavaScript that the page carries: Vega-Lite from vl-convert, DataTables from itables; and what lets it run."""

import base64
import hashlib
import re
from importlib import metadata, resources

import vl_convert

SCRIPT = re.compile(
    r"</(?=script)|<(?=!--)", re.IGNORECASE
)  # what would end an HTML script element, or hide its end


def scripts() -> list[str]:
    """Modules that define window.vegaEmbed (with vega and vegaLite) and window.DataTable, in this order."""
    return [_inline(vl_convert.javascript_bundle()), _inline(_datatables())]


def _datatables() -> str:
    """The bundle of itables, whose exports become properties of the window.

    Raises:
        ValueError: the bundle has another form than expected.
    """
    text = resources.files("itables").joinpath("html/dt_bundle.js").read_text(encoding="utf-8")
    exports = re.findall(r"export\{([^{}]*)\}", text)
    names = dict(reversed(pair.split(" as ")) for pair in exports[-1].split(",")) if exports else {}
    if "default" not in names:
        raise ValueError(
            f"itables {metadata.version('itables')}: dt_bundle.js exports {list(names)}, wanted default"
        )
    return text.replace(f"export{{{exports[-1]}}}", f"window.DataTable={names['default']}")


def _inline(text: str) -> str:
    return SCRIPT.sub(lambda found: f"{found[0][0]}\\{found[0][1:]}", text.replace("\r\n", "\n"))


def policy(texts: list[str]) -> str:
    """A content security policy under which these scripts run and no others, and nothing is loaded from anywhere."""
    sums = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
        for text in texts
    )
    return f"default-src 'none'; script-src {sums}; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"


def licences() -> str:
    """What the page says of them."""
    vega = f"Vega-Lite {vl_convert.get_vegalite_versions()[-1]} and Vega {vl_convert.get_vega_version()} (BSD-3-Clause)"
    return f"{vega}; DataTables from itables {metadata.version('itables')} (MIT)"
