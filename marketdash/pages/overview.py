"""The overview: the first screen, one market at a glance."""

from __future__ import annotations

import logging
from html import escape
from typing import Any

import panel as pn
import panel_material_ui as pmui
import param

from marketdash.clock import ReplayClock
from marketdash.market import Market
from marketdash.pages.bar import Bar
from marketdash.pages.board import Board, plain
from marketdash.pages.controls import Controls, toolbar
from marketdash.pages.desk import Desk
from marketdash.views.pump import Pump
from marketdash.views.theme import ACCENT, FONT

log = logging.getLogger(__name__)

THEME = {
    "dark": {
        "palette": {
            "primary": {"main": ACCENT},
            "background": {"default": "#0e1218", "paper": "#151b23"},
            "divider": "#252d38",
        },
        "typography": {"fontFamily": FONT},
    },
    "light": {
        "palette": {
            "primary": {"main": "#2b6ae0"},
            "background": {"default": "#f4f6f9", "paper": "#ffffff"},
            "divider": "#e1e6ed",
        },
        "typography": {"fontFamily": FONT},
    },
}

# The bar is part of the page, not a coloured band across it.
APP_BAR = {
    "& .MuiAppBar-root": {
        "backgroundColor": "background.paper",
        "backgroundImage": "none",
        "color": "text.primary",
        "boxShadow": "none",
        "borderBottom": "1px solid",
        "borderColor": "divider",
        "& .title": {
            "color": "text.primary",
            "fontSize": "17px",
            "fontWeight": 650,
            "letterSpacing": "-.01em",
        },
        "& .MuiIconButton-root": {"color": "text.secondary"},
        "& .MuiToolbar-root": {"minHeight": "52px", "gap": "8px"},
    },
    "@media (max-width: 600px)": {"& .MuiAppBar-root .title": {"display": "none"}},
}
CAPTION = '<div style="font-size:12.5px;opacity:.7;line-height:1.35">{text}</div>'
DENSE = {"padding": "0 12px", "fontSize": "13px", "alignItems": "center"}


class Overview(param.Parameterized):
    """One viewer's screen: picks a market from the desk, shows it, and gives it back when closed.

    `source` and `symbol` are this viewer's state; the page keeps them in its address.
    """

    source = param.String(default="", doc="The market that is shown.")
    symbol = param.String(default="", doc="The instrument that is selected.")

    def __init__(
        self, desk: Desk, *, principal: str = "anonymous", display_hz: float = 5.0, **params: Any
    ) -> None:
        self.desk, self.principal = desk, principal
        self.market: Market | None = None
        self.pump = Pump(hz=display_hz)
        self._closed = False
        self.board: Board | None = None
        params["source"] = params.get("source") or desk.default
        super().__init__(**params)
        self.notice = pmui.Alert(
            "", severity="info", sizing_mode="stretch_width", visible=False, margin=0, sx=DENSE
        )
        self.trouble = Trouble()
        self.tools = toolbar([])
        self.caption = pn.pane.HTML("", margin=0, sizing_mode="stretch_width")
        self.body = pn.Column(sizing_mode="stretch_width", margin=0)
        choices = desk.choices()
        known = {choice.source for choice in choices}
        self.bar = Bar(choices, self.source if self.source in known else desk.default, self._pick)
        self.pump.add(self.bar)
        self.pump.add(self.trouble)
        self.show()
        self.param.watch(lambda _: self.show(), "source")
        self.param.watch(self._select, "symbol")

    def _pick(self, source: str) -> None:
        self.symbol = ""
        self.source = source

    def _select(self, event: Any) -> None:
        if (
            self.board is not None
            and event.new != self.board.symbol
            and event.new in self.board.market.universe.symbols
        ):
            self.board.symbol = event.new

    def show(self) -> None:
        """Open the chosen market and draw it; what cannot be opened is told, and the default is shown."""
        self._let_go()
        self.notice.visible = False
        market = self._take(self.source)
        if market is None:
            self.tools.objects = [self.bar.picker]
            self.body.objects = []
            return
        self.market = self.bar.market = self.trouble.market = market
        try:
            self._draw(market)
        except BaseException:
            self._let_go()  # nobody else would: the page that failed is never closed
            raise

    def _draw(self, market: Market) -> None:
        tools: list[Any] = [self.bar.picker]
        notes = [market.source.reason] if market.source.reason else []
        if isinstance(market.clock, ReplayClock):
            controls = Controls(market, market.clock)
            self.pump.add(controls)
            tools += controls.parts
            notes.append(controls.note)
        self.caption.object = CAPTION.format(text=escape(" ".join(notes)))
        self.tools.objects = tools
        known = self.symbol.casefold() in {symbol.casefold() for symbol in market.universe.symbols}
        board = Board(market, hurry=True, symbol=market.universe.get(self.symbol).symbol if known else "")
        self.symbol = board.symbol
        board.param.watch(lambda event: self.param.update(symbol=event.new), "symbol")
        self.board = board
        self.pump.add(board)
        self.body.objects = [board.drawn]
        self.bar.tick()

    def _take(self, source: str) -> Market | None:
        try:
            return self.desk.take(source, self.principal)
        except Exception as error:  # a source that somebody added may raise anything
            log.warning("%s cannot be opened", source, exc_info=error)
            self._tell(str(error), "warning")
        if source == self.desk.default:
            return None
        try:
            return self.desk.take(self.desk.default, self.principal)
        except Exception as error:
            log.warning("The default market cannot be opened", exc_info=error)
            return None

    def _tell(self, text: str, severity: str) -> None:
        self.notice.param.update(object=plain(text), severity=severity, visible=True)

    def _let_go(self) -> None:
        for item in self.pump.views[2:]:  # all but the bar and the trouble, which stay
            self.pump.remove(item)
        market, self.market = self.market, None
        self.board = None
        self.bar.market = self.trouble.market = None
        if market is not None:
            self.desk.give_back(market, self.principal)

    def close(self) -> None:
        """Stop drawing and give the market back; closing twice is fine."""
        if self._closed:
            return
        self._closed = True
        self._let_go()
        self.pump.stop()

    def page(self) -> Any:
        """The page of this screen, to be served."""
        return pmui.Page(  # type: ignore[attr-defined]
            title="marketdash",
            header=self.bar.parts,
            main=[
                pn.Column(
                    self.notice,
                    self.trouble.drawn,
                    self.tools,
                    self.caption,
                    self.body,
                    sizing_mode="stretch_width",
                    margin=(12, 14, 24, 14),
                    styles={"gap": "10px"},
                )
            ],
            dark_theme=True,
            theme_toggle=True,
            theme_config=THEME,
            sx=APP_BAR,
            busy_indicator=None,
        )


class Trouble(pn.viewable.Viewer):
    """Says on screen what is wrong with the market's source or a stage, while it is."""

    def __init__(self) -> None:
        super().__init__()
        self.market: Market | None = None
        self.pump: Pump | None = None
        self._text = ""
        self.drawn = pmui.Alert(
            "", severity="error", sizing_mode="stretch_width", visible=False, margin=0, sx=DENSE
        )

    def tick(self) -> bool:
        """Show or hide; returns whether something changed."""
        text = trouble_text(self.market) if self.market is not None else ""
        if text == self._text:
            return False
        self._text = text
        self.drawn.param.update(object=plain(text) or " ", visible=bool(text))
        return True

    def __panel__(self) -> Any:
        return self.drawn


def trouble_text(market: Market) -> str:
    """What a viewer must know about a market that does not work as it should; empty when it does."""
    if market.status.state in ("retrying", "stalled"):
        return f"{market.source.name} is {market.status.state}. {market.status.message}"
    failing = [stage for stage in market.health.failing if not stage.name.startswith("source ")]
    if failing:
        return f"{failing[0].name} fails: {failing[0].last_error}"
    return ""
