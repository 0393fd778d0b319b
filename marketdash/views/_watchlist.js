// The table of the watchlist. Python sends rows once and then what changed; order, flashes and suggestions live here.

const COLUMNS = [
  {key: "symbol", title: "Symbol", sort: row => row.symbol, text: true},
  {key: "last", title: "Last", sort: row => row.last},
  {key: "percent", title: "Change", sort: row => row.percent},
  {key: "line", title: "", sort: null},
  {key: "volume", title: "Volume", sort: row => row.volume},
  {key: "age", title: "Age", sort: row => row.age < 0 ? null : row.age},
  {key: "remove", title: "", sort: null},
]
const UNITS = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]]
const FLASH = 0.24, FLASH_MS = 400
const SORT_MS = 1000
const SUGGESTIONS = 8
const LINE = {width: 96, height: 26, levels: 43}
const NONE = "–"
const calm = window.matchMedia("(prefers-reduced-motion: reduce)")
const fixed = new Map()

function number(value, digits) {
  if (value == null) { return NONE }
  if (!fixed.has(digits)) {
    fixed.set(digits, new Intl.NumberFormat("en-US", {minimumFractionDigits: digits, maximumFractionDigits: digits}))
  }
  return fixed.get(digits).format(value)
}

function compact(value) {
  if (value == null) { return NONE }
  let step = 0
  for (; value >= 999.5 && step < 4; step++) { value /= 1000 }
  return number(value, step && value < 99.95 ? 1 : 0) + ["", "K", "M", "B", "T"][step]
}

function signed(value, digits, unit = "") {
  if (value == null) { return NONE }
  return (value > 0 ? "+" : value < 0 ? "−" : "") + number(Math.abs(value), digits) + unit
}

function age(seconds) {
  if (seconds < 0) { return NONE }
  const [size, unit] = UNITS.find(([size]) => seconds >= size) ?? [1, "s"]
  return `${Math.floor(seconds / size)} ${unit}`
}

const direction = value => value > 0 ? "up" : value < 0 ? "down" : "quiet"

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag)
  for (const [name, value] of Object.entries(attributes)) { made.setAttribute(name, value) }
  made.append(...children)
  return made
}

function put(node, text) {
  if (node.textContent !== text) { node.textContent = text }
}

function drawing() {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg")
  svg.setAttribute("viewBox", `0 0 ${LINE.width} ${LINE.height}`)
  svg.setAttribute("aria-hidden", "true")
  for (const [tag, name] of [["line", "base"], ["polyline", "path"], ["circle", "tip"]]) {
    const part = document.createElementNS(svg.namespaceURI, tag)
    part.setAttribute("class", name)
    svg.append(part)
  }
  return svg
}

function trace(svg, letters) {
  const [base, path, tip] = svg.children
  svg.style.visibility = letters ? "visible" : "hidden"
  if (!letters) { return }
  const level = i => letters.charCodeAt(i) - 48
  const y = i => (LINE.height - 3 - level(i) / LINE.levels * (LINE.height - 6)).toFixed(1)
  const points = letters.length - 1
  const x = i => (2 + (points > 1 ? (i - 1) / (points - 1) : 1) * (LINE.width - 5)).toFixed(1)
  base.setAttribute("x1", 2)
  base.setAttribute("x2", LINE.width - 3)
  base.setAttribute("y1", y(0))
  base.setAttribute("y2", y(0))
  path.setAttribute("points", Array.from({length: points}, (_, i) => `${x(i + 1)},${y(i + 1)}`).join(" "))
  tip.setAttribute("cx", x(points))
  tip.setAttribute("cy", y(points))
  tip.setAttribute("r", 1.7)
  svg.setAttribute("class", direction(level(points) - level(0)))
}

export function render({model}) {
  const {states, colours} = model.esm_constants
  const rows = new Map()
  let order = [], sorted = {key: null, down: true}, sortedAt = 0, seq = null, universe = null

  // What there is

  const title = element("h3"), chip = element("span", {class: "chip"})
  const input = element("input", {
    type: "text", placeholder: "Add symbol", role: "combobox", "aria-label": "Add a symbol to the watchlist",
    "aria-expanded": "false", "aria-controls": "found", "aria-autocomplete": "list", autocomplete: "off",
    spellcheck: "false", maxlength: "40",
  })
  const found = element("ul", {id: "found", role: "listbox", "aria-label": "Matching symbols", popover: "manual"})
  const add = element("form", {class: "add"}, input, found)
  const notice = element("p", {class: "notice", role: "status", hidden: ""})
  const empty = element("p", {class: "empty", hidden: ""}, "No instruments.")
  const head = element("tr"), body = element("tbody")
  const headers = new Map()
  for (const column of COLUMNS) {
    const cell = element("th", {class: column.key, scope: "col"})
    if (column.sort) {
      const button = element("button", {type: "button"}, column.title)
      button.addEventListener("click", () => choose(column))
      cell.append(button)
    } else if (column.key === "remove") {
      cell.append(element("span", {class: "unseen"}, "Remove"))
    }
    head.append(cell)
    headers.set(column.key, cell)
  }
  const table = element("table", {}, element("thead", {}, head), body)
  const board = element("div", {class: "numbers watchlist"},
    element("div", {class: "caption"}, title, chip, add), notice, table, empty)

  // Rows

  function build(symbol) {
    const tr = element("tr", {tabindex: "-1", "data-symbol": symbol})
    const row = {symbol, tr, svg: drawing(), chip: element("span", {class: "chip"})}
    for (const {key} of COLUMNS) { row[`$${key}`] = element("td", {class: key}) }
    row.label = element("span", {class: "label"}, symbol)
    row.name = element("span", {class: "second name"})
    row.$symbol.append(row.label, row.name)
    row.price = element("span")
    row.unit = element("span", {class: "second unit"})
    row.tint = element("i", {class: "tint", "aria-hidden": "true"})
    row.$last.append(row.tint, row.price, row.unit)
    row.share = element("span")
    row.absolute = element("span", {class: "second"})
    row.$percent.append(row.share, row.absolute)
    row.$line.append(row.svg)
    row.since = element("span")
    row.$age.append(row.since, row.chip)
    const remove = element("button", {type: "button", tabindex: "-1", "aria-label": `Remove ${symbol} from the watchlist`}, "×")
    remove.addEventListener("click", event => {
      event.stopPropagation()
      model.send_msg({remove: symbol})
    })
    row.$remove.append(remove)
    for (const {key} of COLUMNS) { tr.append(row[`$${key}`]) }
    tr.addEventListener("click", () => select(symbol))
    tr.addEventListener("keydown", event => keyed(event, row))
    tr.addEventListener("focus", () => rove(tr))
    return row
  }

  const draw = {
    last: row => put(row.price, number(row.last, row.digits)),
    change: row => put(row.absolute, signed(row.change, row.digits)),
    percent: row => {
      put(row.share, signed(row.percent, 2, "%"))
      row.$percent.className = `percent ${direction(row.percent)}`
    },
    digits: row => { draw.last(row); draw.change(row) },
    volume: row => put(row.$volume, compact(row.volume)),
    age: row => put(row.since, age(row.age)),
    state: row => {
      const state = states[row.state]
      put(row.chip, state === "live" ? "" : state === "none" ? "no price" : state)
      row.chip.style.setProperty("--chip", colours[state])
      row.tr.dataset.state = state
    },
    line: row => trace(row.svg, row.line),
  }

  function flash(row, before) {
    if (before == null || row.last == null || before === row.last || calm.matches) { return }
    row.tint.style.background = `var(--md-${row.last > before ? "up" : "down"})`
    row.tint.animate([{opacity: FLASH}, {opacity: 0}], {duration: FLASH_MS, easing: "ease-out"})
  }

  function whole({rows: listed, cells, line}) {
    order = listed.map(([symbol]) => symbol)
    headers.get("line").textContent = line
    for (const [symbol, row] of rows) {
      if (!order.includes(symbol)) { row.tr.remove(); rows.delete(symbol) }
    }
    listed.forEach(([symbol, name, unit], i) => {
      const row = rows.get(symbol) ?? build(symbol)
      rows.set(symbol, row)
      put(row.name, name)
      row.tr.title = name
      put(row.unit, unit)
      for (const key in cells) { row[key] = cells[key][i] }
      for (const key in cells) { draw[key](row) }
    })
    empty.hidden = order.length > 0
    arrange()
    mark()
  }

  function part(cells) {
    const before = new Map()
    for (const key in cells) {
      const [where, values] = cells[key]
      where.forEach((i, j) => {
        const row = rows.get(order[i])
        if (key === "last") { before.set(row, row.last) }
        row[key] = values[j]
      })
    }
    for (const key in cells) {
      for (const i of cells[key][0]) { draw[key](rows.get(order[i])) }
    }
    for (const [row, price] of before) { flash(row, price) }
    if (sorted.key && performance.now() - sortedAt > SORT_MS && !body.matches(":hover")) { arrange() }
  }

  function apply() {
    if (!model.delta) { return }
    const delta = JSON.parse(model.delta)
    if (delta.seq === seq) { return }
    if (!delta.rows && delta.seq !== seq + 1) {
      // Something was missed: this view was not on the page. Ask for all of it.
      if (seq !== null || !rows.size) { model.send_msg({ready: true}) }
      seq = null
      return
    }
    seq = delta.seq
    if (delta.caption) {
      put(title, delta.caption.title)
      put(chip, delta.caption.label)
      chip.title = delta.caption.why
      chip.style.setProperty("--chip", colours[delta.caption.state])
      table.setAttribute("aria-label", delta.caption.title)
    }
    if (delta.rows) { whole(delta) } else if (delta.cells) { part(delta.cells) }
  }

  // Order, focus, choice

  function arrange() {
    sortedAt = performance.now()
    const value = COLUMNS.find(column => column.key === sorted.key)?.sort
    const symbols = [...order]
    if (value) {
      const sign = sorted.down ? -1 : 1
      symbols.sort((one, two) => {
        const [a, b] = [value(rows.get(one)), value(rows.get(two))]
        // What is unknown stays at the end either way.
        if (a == null || b == null) { return (a == null) - (b == null) }
        return sign * (a < b ? -1 : a > b ? 1 : 0)
      })
    }
    const focused = board.getRootNode().activeElement
    symbols.forEach((symbol, i) => {
      const {tr} = rows.get(symbol)
      if (body.children[i] !== tr) { body.insertBefore(tr, body.children[i] ?? null) }
    })
    if (focused && body.contains(focused)) { focused.focus({preventScroll: true}) }
    for (const [key, cell] of headers) {
      if (COLUMNS.find(column => column.key === key).sort) {
        cell.setAttribute("aria-sort", key !== sorted.key ? "none" : sorted.down ? "descending" : "ascending")
      }
    }
  }

  function choose(column) {
    // Numbers: largest first, smallest first, as listed. Texts the other way round.
    const first = !column.text
    if (sorted.key !== column.key) { sorted = {key: column.key, down: first} }
    else if (sorted.down === first) { sorted = {key: column.key, down: !first} }
    else { sorted = {key: null, down: true} }
    arrange()
  }

  function rove(tr) {
    for (const other of body.children) { other.tabIndex = other === tr ? 0 : -1 }
  }

  function mark() {
    for (const {symbol, tr} of rows.values()) { tr.setAttribute("aria-selected", String(symbol === model.symbol)) }
    if (![...body.children].some(tr => tr.tabIndex === 0) && body.firstElementChild) {
      rove(rows.get(model.symbol)?.tr ?? body.firstElementChild)
    }
  }

  function select(symbol) {
    for (const row of rows.values()) { row.tr.setAttribute("aria-selected", String(row.symbol === symbol)) }
    model.send_msg({select: symbol})
  }

  function keyed(event, row) {
    if (event.target !== row.tr) { return }
    const next = {ArrowDown: row.tr.nextElementSibling, ArrowUp: row.tr.previousElementSibling,
      Home: body.firstElementChild, End: body.lastElementChild}
    if (event.key === "Enter" || event.key === " ") { select(row.symbol) }
    else if (event.key === "Delete") {
      (row.tr.nextElementSibling ?? row.tr.previousElementSibling)?.focus()
      model.send_msg({remove: row.symbol})
    }
    else if (event.key in next) { next[event.key]?.focus() }
    else { return }
    event.preventDefault()
  }

  // Adding

  function matches(text) {
    const wanted = text.toLowerCase()
    const rank = ([symbol, name]) => {
      const [s, n] = [symbol.toLowerCase(), name.toLowerCase()]
      return s === wanted ? 0 : s.startsWith(wanted) ? 1 : n.startsWith(wanted) ? 2 : n.includes(` ${wanted}`) ? 3 : s.includes(wanted) ? 4 : 9
    }
    return (universe ?? []).map(item => [rank(item), item]).filter(([r]) => r < 9)
      .sort((a, b) => a[0] - b[0]).slice(0, SUGGESTIONS).map(([, item]) => item)
  }

  function suggest() {
    const items = input.value.trim() ? matches(input.value.trim()) : []
    found.replaceChildren(...items.map(([symbol, name], i) => {
      const option = element("li", {role: "option", id: `option-${i}`, "aria-selected": "false", "data-symbol": symbol},
        element("b", {}, symbol), element("span", {class: "quiet"}, name))
      // Before the field loses the focus.
      option.addEventListener("pointerdown", event => { event.preventDefault(); submit(symbol) })
      return option
    }))
    offer(items.length > 0)
    input.removeAttribute("aria-activedescendant")
  }

  function offer(open) {
    // In the top layer, since the card around a short table would cut the list off.
    found.togglePopover(open)
    if (open) {
      const {right, bottom} = input.getBoundingClientRect()
      found.style.top = `${bottom + 4}px`
      found.style.left = `${Math.max(right - found.offsetWidth, 8)}px`
    }
    input.setAttribute("aria-expanded", String(open))
  }

  function submit(symbol) {
    if (!symbol) { return }
    model.send_msg({add: symbol})
    input.value = ""
    suggest()
  }

  input.addEventListener("focus", () => { if (!universe) { model.send_msg({names: true}) } })
  input.addEventListener("input", () => { notice.hidden = true; suggest() })
  input.addEventListener("blur", () => offer(false))
  input.addEventListener("keydown", event => {
    if (event.key === "Escape") { input.value = ""; suggest(); return }
    if (event.key === "Enter") { event.preventDefault(); send(); return }
    if (event.key !== "ArrowDown" && event.key !== "ArrowUp") { return }
    event.preventDefault()
    const options = [...found.children]
    const now = options.findIndex(option => option.getAttribute("aria-selected") === "true")
    const next = options[(now + (event.key === "ArrowDown" ? 1 : now < 0 ? 0 : -1) + options.length) % options.length]
    for (const option of options) { option.setAttribute("aria-selected", String(option === next)) }
    if (next) { input.setAttribute("aria-activedescendant", next.id) }
  })
  function send() {
    submit(found.querySelector("[aria-selected=true]")?.dataset.symbol ?? input.value.trim())
  }

  add.addEventListener("submit", event => { event.preventDefault(); send() })
  board.addEventListener("focusin", event => {
    // JupyterLab sees only the outermost element and would take our keys for its shortcuts.
    for (const node of event.composedPath()) {
      if (node.shadowRoot) { node.setAttribute("data-lm-suppress-shortcuts", "true") }
    }
  })

  function told() {
    const {text, nearest} = model.notice ? JSON.parse(model.notice) : {text: "", nearest: []}
    notice.hidden = !text
    notice.replaceChildren(text, ...nearest.map(([symbol, name]) => {
      const button = element("button", {type: "button", title: name}, symbol)
      button.addEventListener("click", () => submit(symbol))
      return button
    }))
  }

  model.on("delta", apply)
  model.on("symbol", mark)
  model.on("notice", told)
  model.on("names", () => { universe = JSON.parse(model.names); if (input.value) { suggest() } })
  if (model.names) { universe = JSON.parse(model.names) }
  apply()
  told()
  // From now on changes alone are enough.
  if (seq !== null) { model.send_msg({ready: true}) }
  return board
}
