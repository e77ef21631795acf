"""Fifty texts that become more than text where a page inserts them as markup, evaluates them, or
lets them order what stands around them. Each that runs sets `window.hit`, asks for `/hit`, or opens
a dialog.
"""

from __future__ import annotations

TAGS = (
    "<script>window.hit=1</script>",
    "<SCRIPT SRC=/hit></SCRIPT>",
    "<img src=x onerror=window.hit=1>",
    "<img src=/hit>",
    "<svg/onload=window.hit=1>",
    "<svg><animate onbegin=window.hit=1 attributeName=x dur=1s>",
    "<svg><script href=/hit /></svg>",
    "<math><mtext></p><img src onerror=window.hit=1>",
    "<iframe src=/hit></iframe>",
    "\"><iframe srcdoc='<script>parent.hit=1</script>'>",
    "<object data=/hit></object>",
    "<embed src=/hit>",
    "<link rel=stylesheet href=/hit>",
    "<meta http-equiv=refresh content='0;url=/hit'>",
    "<base href=//127.0.0.1:1/>",
    "<form action=/hit><button autofocus onfocus=window.hit=1>",
    "<template><img src=x onerror=window.hit=1></template>",
    "</textarea><script>window.hit=1</script>",
    "</option></select><img src=x onerror=window.hit=1>",
    "</title><script>alert(1)</script>",
    "<!--><img src=x onerror=window.hit=1>-->",
    "<![CDATA[<script>window.hit=1</script>]]>",
)
HANDLERS = (
    "<details open ontoggle=window.hit=1>",
    "<style onload=window.hit=1></style>",
    "<style>@import '/hit';</style>",
    "<div style='background:url(/hit)'>x</div>",
    "<body onload=window.hit=1>",
    "<input autofocus onfocus=window.hit=1>",
    "<video><source onerror=window.hit=1></video>",
    "<marquee onstart=window.hit=1>",
    '" onmouseover="window.hit=1" x="',
    "' autofocus onfocus='window.hit=1",
)
ADDRESSES = (
    "<a href=javascript:window.hit=1>x</a>",
    "javascript:window.hit=1",
    "java\tscript:alert(1)",
    "data:text/html,<script>alert(1)</script>",
    "//127.0.0.1:1/hit",
    "../../hit?#",
)
TEMPLATES = (
    "${window.hit=1}",
    "{{constructor.constructor('window.hit=1')()}}",
    "#{window.hit=1}",
    "<%= window.hit=1 %>",
    "__proto__",
    "constructor",
    "&lt;img src=x onerror=window.hit=1&gt;",
    "\\u003cscript\\u003ewindow.hit=1\\u003c/script\\u003e",
)
BIDI = (
    "\u202edlrow olleh\u202c",
    "\u2066\u202egnp.exe\u2069",
    "\u200f\u2067abc\u061c",
    "a\u0000b\u001b[31m\ufeff\ufffe\u2028\u2029c",
)
HOSTILE = (*TAGS, *HANDLERS, *ADDRESSES, *TEMPLATES, *BIDI)
