// A hidden server of the kind of 2013, for tests: it sends to a relay what such programs were observed to send. It runs on node 0.12 and on node 20, so it is written in ES5.
//
//   node old-hidden-server.js '{"host":"localhost","port":8443,"tls":true,"ca":"relay.crt","id":"2f40…",
//                               "secretFile":"secret","idleSeconds":120,"agent":"close"}'
//
// options: host, port, id; tls (default true), ca (PEM file), sni (false: none is sent);
//          secretFile (its bytes, as text, are the key) or secretEnv (the name of a variable);
//          idleSeconds (120): after this time without a rendezvous it opens a new connection, and leaves
//          the old one open without reading it; agent: 'close' or 'keep-alive' (the Connection field of its CONNECT);
//          retrySeconds (10): the delay after a failure
//
// It prints a line for each event:  registered | request METHOD /path | swallowed METHOD /path | idle |
// refused STATUS | closed | failed REASON

var crypto = require('crypto')
  , fs = require('fs')
  , http = require('http')
  , https = require('https')

var options = JSON.parse(process.argv[2])
var tls = options.tls !== false
var idle = (options.idleSeconds || 120) * 1000
var retry = (options.retrySeconds || 10) * 1000
var secret = (options.secretFile ? fs.readFileSync(options.secretFile, 'ascii') : process.env[options.secretEnv])
  .replace(/\s+$/, '')
var proto = tls ? https : http

// An http.Agent without keep-alive sends 'close'; newer programs send 'keep-alive'.
var agent = options.agent === 'keep-alive' ? new proto.Agent({ keepAlive: true }) : false

function say (line) {
  fs.writeSync(1, line + '\n')
}

// RFC 6238 with HMAC-SHA-1, six digits, a step of 30 s: the same token again within its step.
function token () {
  var step = Math.floor(Date.now() / 30000)
  var text = ('0000000000000000' + step.toString(16)).slice(-16)
  var mac = crypto.createHmac('sha1', secret).update(new Buffer(text, 'hex')).digest()
  var number = mac.readUInt32BE(mac[mac.length - 1] & 15) & 0x7fffffff

  return ('000000' + (number % 1000000)).slice(-6)
}

// The relay's socket is handed to an ordinary HTTP server, as if it had been accepted.
var server = http.createServer(function (request, response) {
  var size = 0
  var sum = crypto.createHash('sha256')
  var waiting = request.socket.waiting

  if (waiting && waiting.deaf) return say('swallowed ' + request.method + ' ' + request.url)
  say('request ' + request.method + ' ' + request.url)
  if (waiting) waiting.taken()

  request.on('data', function (octets) {
    size += octets.length
    sum.update(octets)
  })
  request.on('end', function () {
    var body = 'old hidden server: ' + request.method + ' ' + request.url + ' ' + size + ' ' + sum.digest('hex') + '\n'

    response.writeHead(200, { 'Content-Type': 'text/plain', 'Content-Length': body.length })
    response.end(body)
  })
})
server.on('clientError', function (err, socket) {
  say('failed ' + err.message)
  if (socket && socket.waiting) socket.waiting.failed()
  if (socket) socket.destroy()
})

function register () {
  var request
  var state = { deaf: false, over: false }

  // Each waiting connection is followed by one other, however it ends.
  function next (delay) {
    clearTimeout(state.timer)
    if (state.over) return
    state.over = true
    setTimeout(register, delay)
  }
  state.taken = function () { next(0) }
  state.failed = function () { next(retry) }

  var wanted = { method: 'CONNECT'
               , host: options.host
               , port: options.port
               , path: 'uuid:' + options.id + '?response=' + token()
               , agent: agent
               }
  if (tls) {
    if (options.ca) wanted.ca = fs.readFileSync(options.ca)
    if (options.sni === false) wanted.servername = ''
    else if (!/^[0-9.:]+$/.test(options.host)) wanted.servername = options.host
    wanted.rejectUnauthorized = true
  }

  request = proto.request(wanted)
  // Bytes in one segment with the 200 come as a third argument, which these programs did not use.
  request.on('connect', function (response, socket) {
    if (response.statusCode !== 200) {
      say('refused ' + response.statusCode)
      socket.destroy()
      return state.failed()
    }

    socket.waiting = state
    socket.on('error', function () { })
    socket.on('close', function () {
      if (!state.over) say('closed')
      state.failed()
    })
    state.timer = setTimeout(function () {
      state.deaf = true
      say('idle')
      next(0)
    }, idle)
    say('registered')
    // On node 0.12 the socket still belongs to the CONNECT message, and answers would wait.
    socket._httpMessage = null
    server.emit('connection', socket)
  })
  request.on('error', function (err) {
    say('failed ' + err.message)
    state.failed()
  })
  request.end()
}

register()
