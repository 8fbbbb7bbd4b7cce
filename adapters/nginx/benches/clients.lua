-- For wrk: a request of one client after another, in an order that a processor can't guess. The argument is a file with a line for
-- each client, its key and its name, 2^n of them.
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
