"""JavaScript libraries that the page contains, and the policy that allows them to run.

Vega-Lite comes from the package vl-convert, DataTables from itables.
"""

import base64
import hashlib
import re
from importlib import metadata, resources

import vl_convert

# What would end an HTML script element early, or hide its end.
UNSAFE = re.compile(r"</(?=script)|<(?=!--)", re.IGNORECASE)


def scripts() -> list[str]:
    """The modules that define window.vegaEmbed and window.DataTable, in this order."""
    return [_inline(vl_convert.javascript_bundle()), _inline(_datatables())]


def _datatables() -> str:
    """The bundle of itables; its default export becomes a property of the window.

    Raises:
        ValueError: The bundle has another form than expected.
    """
    bundle = resources.files("itables").joinpath("html/dt_bundle.js").read_text(encoding="utf-8")
    exports = re.findall(r"export\{([^{}]*)\}", bundle)
    names = {}  # exported name -> name inside of the bundle
    for pair in exports[-1].split(",") if exports else []:
        inner, exported = pair.split(" as ")
        names[exported] = inner
    if "default" not in names:
        version = metadata.version("itables")
        raise ValueError(
            f"itables {version}: dt_bundle.js exports {list(names)}, wanted an export `default`"
        )
    return bundle.replace(f"export{{{exports[-1]}}}", f"window.DataTable={names['default']}")


def _inline(script: str) -> str:
    """The script in a form that may stand inside of an HTML script element."""
    unix = script.replace("\r\n", "\n")  # a browser hashes the script with these line ends
    return UNSAFE.sub(lambda match: f"{match[0][0]}\\{match[0][1:]}", unix)


def policy(texts: list[str]) -> str:
    """A content security policy: these scripts run and no others, and nothing is loaded."""
    sources = []
    for text in texts:
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        sources.append(f"'sha256-{digest}'")
    return (
        f"default-src 'none'; script-src {' '.join(sources)}; style-src 'unsafe-inline'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def licences() -> str:
    """The libraries with their versions and licences."""
    vega_lite = f"Vega-Lite {vl_convert.get_vegalite_versions()[-1]}"
    vega = f"{vega_lite} and Vega {vl_convert.get_vega_version()} (BSD-3-Clause)"
    return f"{vega}; DataTables from itables {metadata.version('itables')} (MIT)"
