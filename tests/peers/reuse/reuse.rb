# Ruby's net/http, one persistent connection:  ruby reuse.rb URL ID-A ID-B CA-FILE COUNT
# The requests and answers are those of plan.py.

require 'digest'
require 'net/http'

url, id_a, id_b, ca, count = ARGV
uri = URI(url)
right = 0
Net::HTTP.start(uri.host, uri.port, nil, use_ssl: true, ca_file: ca, read_timeout: 60, keep_alive_timeout: 30) do |http|
  count.to_i.times do |number|
    index = (number + number / 4) % 2
    name = 'ab'[index]
    target = "/#{name}/#{number}"
    request = number / 2 % 2 == 1 ? Net::HTTP::Post.new(target) : Net::HTTP::Get.new(target)
    request.body = "for-#{name}-#{number};" * (1 + number % 7 * 500) if request.is_a?(Net::HTTP::Post)
    request.basic_auth([id_a, id_b][index], 'any')
    body = request.body.to_s
    wanted = "200 #{name} #{request.method} #{target} #{body.bytesize} #{Digest::SHA256.hexdigest(body)}\n"
    answer = http.request(request)
    got = "#{answer.code} #{answer.body}"
    got == wanted ? right += 1 : warn("wrong: #{request.method} #{target}: #{got}")
  end
end
puts "#{right} answered by their own hidden server"
exit right == count.to_i
