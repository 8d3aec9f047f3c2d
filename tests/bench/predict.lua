-- Sends the bodies of a file, one a line, again and again; says at the end what came out, as one line of JSON.
local requests, turn = {}, 0

function init(args)
  local headers = { ["content-type"] = "application/json" }
  local key = os.getenv("BENCH_AUTHORIZATION")
  if key then headers["authorization"] = key end
  for body in io.lines(args[1]) do
    requests[#requests + 1] = wrk.format("POST", nil, headers, body)
  end
end

function request()
  turn = turn % #requests + 1
  return requests[turn]
end

function done(summary, latency, _)
  local e = summary.errors
  io.write(string.format(
    '{"requests": %d, "microseconds": %d, "p50": %d, "p99": %d, "status": %d, "socket": %d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    e.status, e.connect + e.read + e.write + e.timeout))
end
