-- A wrk script: sends a request of another client each time, in an order that a processor cannot
-- predict. The argument is a file of 2^n lines, each with a client's key and its name.
local requests, at = {}, 0

function init(arguments)
    for line in io.lines(arguments[1]) do
        local key, name = line:match("(%S+) (%S+)")
        requests[#requests + 1] = wrk.format("GET", nil, { ["X-API-Key"] = key, ["X-Client"] = name })
    end
end

function request()
    at = (at * 5 + 1) % #requests
    return requests[at + 1]
end
