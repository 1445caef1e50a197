# Ruby's clients, which answer the challenge: RELAY ID CA WHICH.
require 'net/http'
require 'openssl'
require 'uri'

relay, user, ca, which = ARGV
uri = URI.parse("#{relay}/ruby")

def plain(uri, ca)
  http = Net::HTTP.new(uri.host, uri.port, nil)
  http.use_ssl = true
  http.ca_file = ca
  http.start { |started| yield started }
end

case which
when 'basic'
  plain(uri, ca) do |http|
    request = Net::HTTP::Get.new(uri.request_uri)
    request.basic_auth(user, 'any')
    print http.request(request).body
  end
when 'digest_auth'
  require 'net/http/digest_auth'
  plain(uri, ca) do |http|
    challenge = http.request(Net::HTTP::Get.new(uri.request_uri))
    named = uri.dup
    named.user = user
    named.password = 'any'
    request = Net::HTTP::Get.new(uri.request_uri)
    field = challenge.get_fields('www-authenticate').find { |value| value.start_with?('Digest') }
    request['Authorization'] = Net::HTTP::DigestAuth.new.auth_header(named, field, 'GET')
    print http.request(request).body
  end
when 'mechanize'
  require 'mechanize'
  agent = Mechanize.new
  agent.ca_file = ca
  agent.add_auth(relay, user, 'any')
  print agent.get(uri.to_s).body
when 'httpclient'
  require 'httpclient'
  client = HTTPClient.new
  client.ssl_config.clear_cert_store
  client.ssl_config.add_trust_ca(ca)
  client.set_auth(relay, user, 'any')
  print client.get(uri.to_s).body
end
