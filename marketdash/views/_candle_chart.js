// Runs whenever bars arrive or the pointer moves. Everything here stays in the browser: the window on the
// bars, the line of the last price, the crosshair and the readout cost no message to the server.
const again = (wait) => setTimeout(() => { readout.tags = [Date.now()] }, wait)
if (price.properties.inner_width.is_unset) {
  // Not laid out yet, so that sizes are unknown.
  again(50)
  return
}
const {i, t, d, o, h, l, c, v, up} = source.data
const [meta] = source.tags
const n = i.length, first = i[0], newest = i[n - 1]
const state = source.chart ??= {
  key: null, width: null, newest: null, span: null, turn: 0, hover: null, level: null, tapped: 0,
}
const event = cb_obj.event_name
if (state.turn !== meta.turn) {
  // Bokeh keeps the models of panes that have gone until somebody counts them anew.
  source.document?._recompute_all_models?.()
  state.turn = meta.turn
}

// The window: it follows new bars while the newest one is in view, and stays where the reader has moved it.
const SHORTEST = 60, AHEAD = 120
const usual = () => Math.min(240, Math.max(45, Math.round(price.inner_width / 7.5)))
const limit = (span) => {
  const room = Math.max(2, 0.04 * span)
  range.bounds = [Math.min(first - 5, newest + room - Math.max(SHORTEST, span)), newest + AHEAD]
}
const show = (span) => {
  const room = Math.max(2, 0.04 * span)
  limit(span)
  range.setv({start: newest + room - span, end: newest + room})
}
const {start, end} = range
if (n == 0) {
  state.newest = null
  range.bounds = null
  range.setv({start: -SHORTEST, end: 0})
} else if (state.key !== meta.key || state.newest === null || newest < state.newest) {
  const fresh = state.width !== meta.width || state.newest === null
  show(fresh ? usual() : end - start)
  if (fresh) {
    state.span = range.end - range.start
    // What lies around may still be taking its place.
    ;[100, 400, 1500].forEach(again)
  }
} else if (event == "doubletap" || range.tags[0] !== state.asked) {
  show(end - start)
} else if (newest > state.newest) {
  limit(end - start)
  if (end >= state.newest) {
    const step = newest - state.newest
    range.setv({start: start + step, end: end + step})
  }
} else if (state.span !== null && Math.abs(end - start - state.span) < 1e-6 && end >= newest) {
  if (usual() !== Math.round(state.span)) {
    show(usual())
    state.span = range.end - range.start
  }
}
if (n > 0) {
  Object.assign(state, {key: meta.key, width: meta.width, newest, asked: range.tags[0]})
}
empty.visible = n == 0

// Bars are as thick as the zoom allows; an odd number of pixels has the wick in its middle.
const pixels = Math.floor(body * price.inner_width / (range.end - range.start))
const thick = Math.max(1, pixels > 2 && pixels % 2 == 0 ? pixels - 1 : pixels)
for (const pane of layout.children.filter((child) => child.renderers != null)) {
  // A finger that goes up or down scrolls the page; Bokeh would take every touch for itself.
  const touch = pane.freed ? null : cb_context.index.find_one(pane)?.canvas?.touch_action
  if (touch != null) {
    touch.replace(".bk-events { touch-action: pan-y; }")
    pane.freed = true
  }
  pane.right[0].visible = n > 0
  pane.renderers.find(({name}) => name == "nothing").visible = n == 0
  for (const bar of pane.renderers.filter(({name}) => name == "bar")) {
    if (bar.glyph.line_width.value !== thick) {
      bar.glyph.line_width = {value: thick}
    }
  }
}

// The crosshair
if (event == "mousemove" || event == "tap") {
  const level = cb_obj.origin.center.find((item) => item.name == "level")
  if (state.level != null && state.level !== level) {
    state.level.location = null
  }
  state.level = level
  state.hover = n == 0 ? null : Math.min(newest, Math.max(first, Math.round(cb_obj.x)))
  cross.location = state.hover
  level.location = cb_obj.y
  const there = cb_obj.origin === price && Number.isFinite(cb_obj.y)
  if (there) {
    pointer.setv({y: cb_obj.y, text: fixed(cb_obj.y, meta.digits)})
  }
  see(pointer, there)
  state.tapped = event == "tap" ? Date.now() : 0
} else if (event == "mouseleave" && Date.now() - state.tapped > 300) {
  // A finger that taps leaves at once; what it has pointed at stays.
  state.hover = cross.location = null
  see(pointer, false)
  if (state.level != null) {
    state.level.location = null
  }
}

// The last price
if (n > 0) {
  const colour = colours[up[n - 1] ? "up" : "down"]
  if (line.location !== c[n - 1] || line.line_color !== colour) {
    line.setv({location: c[n - 1], line_color: colour})
    last.setv({y: c[n - 1], text: fixed(c[n - 1], meta.digits), background_fill_color: colour})
  }
}
see(last, n > 0)
line.visible = n > 0

// The readout: the bar under the pointer, else the newest one
const k = state.hover === null || n == 0 ? n - 1 : Math.min(n - 1, Math.max(0, state.hover - first))
const text = `<div class="numbers readout">${n == 0 ? "" : bar_text(k) + readings_text(k)}</div>`
if (readout.text !== text) {
  // Into the page itself: a change of the model would lay out the whole chart anew (5 ms instead of 0.07).
  readout.setv({text}, {silent: true})
  const view = cb_context.index.find_one(readout)
  if (view?.markup_el != null) {
    view.markup_el.innerHTML = text
  }
}

// A label that were made invisible would give up its place, and all would be laid out anew.
function see(label, seen) {
  label.setv({text_alpha: seen ? 1 : 0, background_fill_alpha: seen ? 1 : 0})
}

function bar_text(k) {
  const before = k > 0 ? c[k - 1] : o[k]
  const change = c[k] - before
  const tone = change > 0 ? "up" : change < 0 ? "down" : "quiet"
  const value = (name, number, digits) => `<span><i>${name}</i> <b>${fixed(number, digits)}</b></span>`
  const columns = [["O", o], ["H", h], ["L", l], ["C", c]]
  const prices = columns.map(([name, column]) => value(name, column[k], meta.digits))
  const moved = `${signed(change, meta.digits)} ${signed(change / before * 100, 2)}%`
  return `<div><span class="quiet">${moment(k)}</span>${prices.join("")}`
    + `<span class="${tone}">${moved}</span><span><i>Vol</i> <b>${compact(v[k])}</b></span></div>`
}

function readings_text(k) {
  const one = ({label, price, values}) => {
    const numbers = values.filter(({column}) => column in source.data).map(({column, colour, code}) => {
      const number = source.data[column][k]
      const text = code ? fixed(number, 0) : price ? fixed(number, meta.digits) : plain(number)
      return `<b style="--series:${colour}">${text}</b>`
    })
    const name = `<i>${escaped(label)}</i>`
    return `<span class="reading" style="--series:${values[0].colour}">${name} ${numbers.join(" ")}</span>`
  }
  return meta.readings.length ? `<div>${meta.readings.map(one).join("")}</div>` : ""
}

function moment(k) {
  const day = new Date(meta.daily ? d[k] * 864e5 : t[k])
  const month = `${MONTHS[day.getUTCMonth()]} ${day.getUTCFullYear()}`
  const date = `${DAYS[day.getUTCDay()]} ${day.getUTCDate()} ${month}`
  return meta.daily ? date : `${date} ${day.toISOString().slice(11, meta.seconds ? 19 : 16)}`
}
