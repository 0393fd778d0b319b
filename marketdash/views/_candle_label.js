// The label of a tick: the unit of time that begins with its bar.
const {i, t, d} = source.data
const [{daily}] = source.tags
const k = Math.round(tick - i[0])
if (!(k >= 0 && k < i.length)) {
  return ""
}
const day = new Date(d[k] * 864e5), before = k > 0 ? new Date(d[k - 1] * 864e5) : null
const date = `${day.getUTCDate()} ${MONTHS[day.getUTCMonth()]}`
if (!daily) {
  if (before === null || d[k] !== d[k - 1]) {
    return date
  }
  const time = new Date(t[k]).toISOString()
  return time.slice(11, t[k] % 60000 ? 19 : 16)
}
if (before === null) {
  return date
}
if (day.getUTCFullYear() !== before.getUTCFullYear()) {
  return `${day.getUTCFullYear()}`
}
return day.getUTCMonth() !== before.getUTCMonth() ? MONTHS[day.getUTCMonth()] : `${day.getUTCDate()}`
