"""How a page looks, measured in a browser: what is too wide, too faint or too small to be read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

SIZES = pytest.mark.parametrize(
    ("width", "scheme"), [(width, scheme) for width in (400, 1280) for scheme in ("light", "dark")]
)
CONTRAST, PIXELS = 4.5, 9
"""Least contrast of text to what is behind it (WCAG AA), and least size of its letters."""

_FAULTS = """([contrast, pixels]) => {
  const rgb = text => { const found = text.match(/[\\d.]+/g).map(Number); return [...found, 1].slice(0, 4) };
  const light = colour => colour.slice(0, 3).map(each => each / 255)
    .map(each => each <= .03928 ? each / 12.92 : ((each + .055) / 1.055) ** 2.4)
    .reduce((sum, each, place) => sum + each * [.2126, .7152, .0722][place], 0);
  const over = (front, back) =>
    back.slice(0, 3).map((each, i) => front[i] * front[3] + each * (1 - front[3]));
  const behind = element => {
    const layers = [];
    for (let each = element; each; each = each.parentElement)
      layers.push(rgb(getComputedStyle(each).backgroundColor));
    return layers.reverse().reduce((back, front) => over(front, back), [255, 255, 255]);
  };
  const faults = [], texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const wide = document.documentElement.scrollWidth;
  if (wide > innerWidth) faults.push(`${wide} pixels wide`);
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement, text = texts.currentNode.data.trim();
    const quiet = element.closest("script, style, title, option, :disabled");
    if (!text || quiet || !element.checkVisibility()) continue;
    const style = getComputedStyle(element), drawing = element.closest("svg");
    const back = behind(drawing || element), front = over(rgb(drawing ? style.fill : style.color), back);
    const [dark, bright] = [light(front), light(back)].sort((one, other) => one - other);
    const ratio = (bright + .05) / (dark + .05);
    const size = parseFloat(style.fontSize) * (drawing ? drawing.getScreenCTM().a : 1);
    if (ratio < contrast) faults.push(`contrast ${ratio.toFixed(1)}: ${text.slice(0, 40)}`);
    if (size < pixels) faults.push(`${size.toFixed(1)} pixels: ${text.slice(0, 40)}`);
  }
  for (const caption of document.querySelectorAll("caption, figcaption, .caption"))
    if (caption.getBoundingClientRect().right > innerWidth + 1)
      faults.push(`cut: ${caption.textContent.slice(0, 40)}`);
  return faults;
}"""


def faults(page: Any) -> list[str]:
    """What is wrong with the look of a page that a browser shows, in words."""
    found: list[str] = page.evaluate(_FAULTS, [CONTRAST, PIXELS])
    return found


def faults_of(browser: Any, file: Path, width: int, scheme: str) -> list[str]:
    """The same of a file, in a window of a width, on a light or a dark screen."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    page.goto(file.as_uri())
    found = faults(page)
    context.close()
    return found
