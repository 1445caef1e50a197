// Node's https as a client:  node https-client.js URL ID CA-FILE
// It runs on node 0.12 and on node 20, so it is written in ES5.

var fs = require('fs')
  , https = require('https')
  , url = require('url')

function ask (method, target, body, next) {
  var options = url.parse(process.argv[2] + target)
  var request

  options.method = method
  options.hostname = 'localhost'
  options.host = undefined
  options.auth = process.argv[3] + ':any'
  options.ca = fs.readFileSync(process.argv[4])
  options.agent = false
  if (body) options.headers = { 'Content-Length': body.length }
  request = https.request(options, function (response) {
    if (response.statusCode !== 200) throw new Error('status ' + response.statusCode)
    response.on('end', next)
    response.pipe(process.stdout, { end: false })
  })
  request.end(body)
}

ask('GET', '/get', undefined, function () {
  ask('POST', '/post', new Array((1 << 20) + 1).join('x'), function () { })
})
