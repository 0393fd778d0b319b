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

function compact(number) {
  if (number == null || !Number.isFinite(number)) {
    return DASH
  }
  for (const [size, unit] of [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e4, "K"]]) {
    if (Math.abs(number) >= size) {
      const scaled = number / (unit == "K" ? 1e3 : size)
      return fixed(scaled, Math.abs(scaled) >= 100 ? 0 : Math.abs(scaled) >= 10 ? 1 : 2) + unit
    }
  }
  return fixed(number, Number.isInteger(number) ? 0 : 2)
}

// A number whose size nobody knows beforehand.
function plain(number) {
  const size = Math.abs(number)
  if (!Number.isFinite(number) || size >= 1e4) {
    return compact(number)
  }
  return fixed(number, size >= 1 || size == 0 ? 2 : Math.min(8, 2 - Math.floor(Math.log10(size))))
}

// A tick's number, without the zeros that say nothing.
function rounded(number) {
  return Math.abs(number) < 1e4 ? `${+number.toPrecision(6)}` : compact(number).replace(/\.?0+(?=[A-Z])/, "")
}

function escaped(text) {
  return text.replace(/[&<>"]/g, (sign) => `&#${sign.charCodeAt(0)};`)
}
