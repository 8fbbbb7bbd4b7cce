'use strict'

// A process that spends the units of a fleet, with the arguments and the output of `spend.c`.

const assert = require('node:assert')
const fs = require('node:fs')
const { setTimeout } = require('node:timers/promises')

const { Gate } = require('keytally')

async function main([file, fleet, windowS, end, ...keys]) {
  const gate = Gate.open(file, { pepper: process.env.KEYTALLY_PEPPER, fleet })
  const counts = new Map()
  console.log('ready')
  while (!fs.existsSync(end)) {
    for (const [number, key] of keys.entries()) {
      const verdict = await gate.acheck(key)
      if (verdict.outcome === 'unavailable') continue
      const window = Math.floor(verdict.resetUnixS / windowS) - 1
      let late = Math.floor((Date.now() + 10) / 1000 / windowS) - window
      if (verdict.outcome === 'denied') late = -1
      else assert(verdict.admitted && verdict.leased)
      const counted = `${number} ${window} ${late}`
      counts.set(counted, (counts.get(counted) ?? 0) + 1)
    }
    await setTimeout(5)
  }
  for (const [counted, count] of counts) console.log(`${counted} ${count}`)
}

main(process.argv.slice(2))
