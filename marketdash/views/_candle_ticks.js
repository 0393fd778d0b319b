// Places of the labels under the bars. A bar weighs as much as the largest unit of time that begins with it,
// and the heaviest are labelled first: whole hours before halves, days before hours, years before months.
const {i, t, d} = source.data
const [{daily}] = source.tags
const n = i.length
const STEPS = [1, 5, 15, 30, 60, 300, 900, 1800, 3600, 10800, 21600, 43200]
const {start, end} = cb_data
// Before the first layout there is no size, and asking for it is an error.
const pixels = figure.properties.inner_width.is_unset ? 600 : figure.inner_width
const room = (daily ? 54 : 64) * (end - start) / Math.max(1, pixels)

function weight(k) {
  if (k == 0) {
    return daily ? 1 : 20
  }
  const [day, before] = [new Date(d[k] * 864e5), new Date(d[k - 1] * 864e5)]
  if (d[k] !== d[k - 1]) {
    if (day.getUTCFullYear() !== before.getUTCFullYear()) {
      return 22
    }
    if (day.getUTCMonth() !== before.getUTCMonth()) {
      return 21
    }
    const week = (days) => Math.floor((days + 3) / 7)
    return daily ? (week(d[k]) !== week(d[k - 1]) ? 2 : 1) : 20
  }
  let found = 0
  STEPS.forEach((step, place) => {
    if (Math.floor(t[k] / step / 1000) !== Math.floor(t[k - 1] / step / 1000)) {
      found = place + 1
    }
  })
  return found
}

const levels = Array.from({length: 23}, () => [])
for (let k = 0; k < n; k++) {
  levels[weight(k)].push(k)
}
let chosen = []
for (const level of levels.reverse()) {
  // Both are in order: walk through them together, and take what is far enough from both neighbours.
  const merged = []
  let next = 0, taken = 0
  for (const k of level) {
    while (next < chosen.length && chosen[next] < k) {
      merged.push(chosen[next++])
    }
    const before = merged.length ? merged[merged.length - 1] : -Infinity
    const after = next < chosen.length ? chosen[next] : Infinity
    if (k - before >= room && after - k >= room) {
      merged.push(k)
      taken++
    }
  }
  // A unit that does not fit as a whole would be labelled at odd places.
  if (taken < 0.6 * level.length) {
    break
  }
  chosen = merged.concat(chosen.slice(next))
}
return chosen.map((k) => i[k]).filter((number) => number >= start && number <= end)
