// How numbers and times read; put before the scripts that need it.
const DAYS = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"]
const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
const DASH = "\u2013", MINUS = "\u2212"

function fixed(number, digits) {
  if (number == null || !Number.isFinite(number)) {
    return DASH
  }
  const [whole, part] = Math.abs(number).toFixed(digits).split(".")
  const grouped = whole.replace(/\B(?=(\d{3})+$)/g, ",")
  return (number < 0 ? MINUS : "") + grouped + (part ? "." + part : "")
}

function signed(number, digits) {
  return (number > 0 ? "+" : "") + fixed(number, digits)
}

const UNITS = [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e3, "K"]]

// Three digits of a large number.
function compact(number) {
  if (number == null || !Number.isFinite(number)) {
    return DASH
  }
  const size = Math.abs(number)
  const [unit, name] = size >= 1e4 ? UNITS.find(([least]) => size >= least) : [1, ""]
  const scaled = number / unit, whole = Math.abs(scaled)
  const digits = unit == 1 ? (Number.isInteger(number) ? 0 : 2) : whole >= 100 ? 0 : whole >= 10 ? 1 : 2
  return fixed(scaled, digits) + name
}

// A number whose size nobody knows beforehand.
function plain(number) {
  const size = Math.abs(number)
  if (!Number.isFinite(number) || size >= 1e4) {
    return compact(number)
  }
  return fixed(number, size >= 1 || size == 0 ? 2 : Math.min(8, 2 - Math.floor(Math.log10(size))))
}

// A tick's number, without zeros that say nothing.
function rounded(number) {
  const size = Math.abs(number)
  const [unit, name] = size >= 1e4 ? UNITS.find(([least]) => size >= least) : [1, ""]
  return `${+(number / unit).toPrecision(6)}${name}`.replace("-", MINUS)
}

function escaped(text) {
  return text.replace(/[&<>"]/g, (sign) => `&#${sign.charCodeAt(0)};`)
}
