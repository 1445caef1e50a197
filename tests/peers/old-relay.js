// A relay with the observed behaviour of node-rendezvous (2013), for tests: one waiting connection per ID, plain tokens.
// It runs on node 0.12 and on node 20, so it is written in ES5. The heads are parsed here, over net and tls,
// so that its output does not depend on the version of the http module.
//
//   node old-relay.js '{"port":0,"tls":true,"cert":"relay.crt","key":"relay.key",
//                       "ids":{"2f40…":"secretFile"},"idleSeconds":120}'
//
// options: host (127.0.0.1), port (0: any), tls (default true), cert, key (PEM files);
//          ids: an ID's file, whose bytes, as text, are its key; idleSeconds (120)
//
// It prints a line for each event:  listening PORT | waiting ID | kicked ID | idle ID | gone ID | paired ID |
// refused STATUS DIAGNOSTIC | challenged

var crypto = require('crypto')
  , fs = require('fs')
  , net = require('net')
  , tls = require('tls')

var options = JSON.parse(process.argv[2])
var idle = (options.idleSeconds || 120) * 1000
var waiting = {}
var secrets = {}

Object.keys(options.ids).forEach(function (id) {
  secrets[id.toLowerCase()] = fs.readFileSync(options.ids[id], 'ascii').replace(/\s+$/, '')
})

function say (line) {
  fs.writeSync(1, line + '\n')
}

// RFC 6238: HMAC-SHA-1, six digits, a step of 30 s.
function token (secret, step) {
  var text = ('0000000000000000' + step.toString(16)).slice(-16)
  var mac = crypto.createHmac('sha1', secret).update(new Buffer(text, 'hex')).digest()
  var number = mac.readUInt32BE(mac[mac.length - 1] & 15) & 0x7fffffff

  return ('000000' + (number % 1000000)).slice(-6)
}

function acceptable (id, given) {
  var step = Math.floor(Date.now() / 30000)

  return secrets[id] !== undefined && [ step - 1, step, step + 1 ].some(function (each) {
    return token(secrets[id], each) === given
  })
}

// No reason phrase, no Content-Length, no Date: the answer ends where the connection does.
function refuse (socket, status, diagnostic) {
  say('refused ' + status + ' ' + diagnostic)
  socket.end('HTTP/1.1 ' + status + '\r\nContent-Type: application/json\r\n\r\n'
             + JSON.stringify({ error: { permanent: false, diagnostic: diagnostic } }))
}

function challenge (socket) {
  say('challenged')
  socket.end('HTTP/1.1 401\r\nWWW-Authenticate: Digest realm="rendezvous", qop="auth, auth-int", nonce="'
             + crypto.randomBytes(16).toString('hex') + '", opaque="' + crypto.randomBytes(16).toString('hex')
             + '"\r\n\r\n')
}

// A hidden server.
function register (socket, target, behind) {
  var match = /^uuid:([^?]*)(?:\?(.*))?$/i.exec(target)
  var id, response, old, timer

  if (!match) return refuse(socket, 403, 'not a uuid: target')
  id = match[1].toLowerCase()
  response = /(?:^|&)response=([^&]*)/.exec(match[2] || '')
  if (!response) return refuse(socket, 407, 'response parameter missing')
  if (behind.length > 0) return refuse(socket, 409, 'data before the answer')
  if (!acceptable(id, response[1])) return refuse(socket, 401, 'authentication failed')

  old = waiting[id]
  if (old) {
    say('kicked ' + id)
    old.leave()
    old.socket.end()
  }
  function leave () {
    clearTimeout(timer)
    socket.removeListener('close', gone)
    if (waiting[id] && waiting[id].socket === socket) delete waiting[id]
  }
  function gone () {
    leave()
    say('gone ' + id)
  }
  timer = setTimeout(function () {
    say('idle ' + id)
    leave()
    socket.end()
  }, idle)
  socket.on('close', gone)
  socket.resume()
  socket.write('HTTP/1.1 200\r\n\r\n')
  waiting[id] = { socket: socket, leave: leave }
  say('waiting ' + id)
}

function base64 (text) {
  return new Buffer(text, 'base64').toString('ascii')
}

function identity (credentials) {
  var match

  if (/^Digest\s/i.test(credentials)) {
    match = /[\s,]username="([^"]*)"/i.exec(credentials)
    return match ? match[1].toLowerCase() : null
  }
  if (/^Basic\s/i.test(credentials)) return base64(credentials.slice(6)).split(':')[0].toLowerCase()
  return null
}

var SINGLE = [ 'content-length', 'content-type', 'host', 'authorization', 'user-agent', 'referer', 'from' ]

// Fields as the http module returns them: lower case, repeated ones joined.
function fieldsOf (lines) {
  var fields = {}

  lines.forEach(function (line) {
    var at = line.indexOf(':')
    var name = line.slice(0, at).toLowerCase()
    var value = line.slice(at + 1).trim()

    if (fields[name] === undefined) fields[name] = value
    else if (SINGLE.indexOf(name) < 0) fields[name] += ', ' + value
  })
  return fields
}

// A client.
function pair (socket, line, lines, behind) {
  var fields = fieldsOf(lines)
  var query = /[?&]rendezvous=([0-9a-f-]{36})/i.exec(line)
  var id = fields.upgrade && query ? query[1].toLowerCase() : null
  var hidden, head

  if (!id) {
    if (!fields.authorization) return challenge(socket)
    id = identity(fields.authorization)
    if (!id) return challenge(socket)
  }
  if (!waiting[id]) return refuse(socket, 404, 'UUID not registered')
  hidden = waiting[id].socket
  waiting[id].leave()
  say('paired ' + id)

  head = line + '\r\n'
  Object.keys(fields).forEach(function (name) {
    if (name !== 'authorization') head += name + ': ' + fields[name] + '\r\n'
  })
  hidden.write(head + '\r\n')
  if (!fields.upgrade && behind.length > 0) hidden.write(behind)

  hidden.removeAllListeners('close')
  splice(hidden, socket)
  splice(socket, hidden)
}

// If either closes, the other is closed.
function splice (from, to) {
  from.pipe(to)
  from.on('close', function () {
    to.end()
  })
}

function accepted (socket) {
  var seen = new Buffer(0)

  socket.on('error', function () { })
  function onData (octets) {
    var end, lines, words, behind

    seen = Buffer.concat([ seen, octets ])
    end = seen.toString('binary').indexOf('\r\n\r\n')
    if (end < 0) return
    socket.pause()
    socket.removeListener('data', onData)
    behind = seen.slice(end + 4)
    lines = seen.slice(0, end).toString('binary').split('\r\n')
    words = lines[0].split(' ')
    if (words[0] === 'CONNECT') register(socket, words[1] || '', behind)
    else pair(socket, lines[0], lines.slice(1), behind)
  }
  socket.on('data', onData)
}

var server = options.tls === false
  ? net.createServer(accepted)
  : tls.createServer({ cert: fs.readFileSync(options.cert), key: fs.readFileSync(options.key) }, accepted)

server.on('clientError', function () { })
server.on('tlsClientError', function () { })
server.listen(options.port || 0, options.host || '127.0.0.1', function () {
  say('listening ' + server.address().port)
})
