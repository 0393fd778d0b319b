// The numbers of the strip. Python sends all of them as texts; this puts them on the page.

const LABELS = {
  index: "Index, equal weight", breadth: "Breadth", turnover: "Turnover", priced: "Priced today", best: "Best", worst: "Worst",
}
const SIDES = [["up", "▲", "advancing"], ["down", "▼", "declining"], ["flat", "■", "unchanged"]]

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag)
  for (const [name, value] of Object.entries(attributes)) { made.setAttribute(name, value) }
  made.append(...children)
  return made
}

function put(node, text) {
  if (node.textContent !== text) { node.textContent = text }
}

const direction = sign => sign > 0 ? "up" : sign < 0 ? "down" : ""

export function render({model}) {
  const {colours} = model.esm_constants
  const title = element("h3"), chip = element("span", {class: "chip"})
  const row = element("div", {class: "row"})
  const cells = new Map()

  function paint(node, state, label, why = "") {
    put(node, label)
    node.title = why
    node.style.setProperty("--chip", colours[state])
  }

  for (const [key, label] of Object.entries(LABELS)) {
    const mover = key === "best" || key === "worst"
    const cell = {
      box: element(mover ? "button" : "div", mover ? {class: `cell ${key}`, type: "button"} : {class: `cell ${key}`, role: "group"}),
      chip: element("span", {class: "chip"}), symbol: element("b"), text: element("span"), count: element("span"),
      state: element("span", {class: "state"}), name: element("span", {class: "name"}),
    }
    cell.value = element("span", {class: "value"}, cell.symbol, cell.text)
    cell.note = element("span", {class: "note"}, cell.count, cell.state, cell.name)
    cell.box.append(element("span", {class: "label"}, label, cell.chip), cell.value, cell.note)
    if (key === "breadth") {
      cell.sides = SIDES.map(([side, mark, meaning]) => {
        const count = element("span", {class: "count"})
        const made = element("span", {class: `side ${side}`, title: meaning}, element("i", {"aria-hidden": "true"}, mark), count,
          element("span", {class: "unseen"}, ` ${meaning} `))
        return {made, count, bar: element("i", {class: side})}
      })
      cell.bar = element("span", {class: "bar", "aria-hidden": "true"}, ...cell.sides.map(side => side.bar))
      cell.value.append(...cell.sides.map(side => side.made))
      cell.value.after(cell.bar)
    }
    if (mover) {
      cell.box.addEventListener("click", () => { if (cell.pick) { model.send_msg({select: cell.pick}) } })
    }
    row.append(cell.box)
    cells.set(key, cell)
  }

  function apply() {
    const numbers = JSON.parse(model.numbers)
    const {caption} = numbers
    put(title, caption.title)
    paint(chip, caption.state, caption.label, caption.why)
    for (const [key, cell] of cells) {
      const {text, sign, state, age, note, symbol, counts} = numbers[key]
      // What is old or shut is shouted, what is merely not live is said.
      const loud = state === "stale" || state === "closed"
      cell.box.dataset.state = state
      paint(cell.chip, state, loud ? state : "")
      paint(cell.state, state, loud || state === "live" || state === "none" ? "" : state)
      put(cell.text, text)
      cell.text.className = direction(sign)
      // The name of a mover comes last, where it may be cut off.
      put(cell.count, [symbol === undefined && note, age].filter(Boolean).join(" · "))
      put(cell.name, symbol === undefined || note === symbol ? "" : note)
      cell.note.title = age ? `${note}: the oldest price used is ${age} old` : note
      if (cell.sides) {
        const known = counts.length > 0
        cell.box.classList.toggle("unknown", !known)
        cell.sides.forEach(({count, bar}, i) => {
          put(count, known ? counts[i].toLocaleString("en-US") : "")
          bar.style.flexGrow = known ? counts[i] : 0
        })
      }
      if (symbol !== undefined) {
        cell.pick = symbol
        put(cell.symbol, symbol)
        cell.box.disabled = !symbol
        cell.box.setAttribute("aria-label", symbol ? `${LABELS[key]}: ${symbol} ${text}, ${state}. Select it.` : `${LABELS[key]}: none`)
      }
    }
  }

  model.on("numbers", apply)
  apply()
  return element("div", {class: "numbers strip"}, element("div", {class: "caption"}, title, chip), row)
}
