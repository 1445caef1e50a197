// Java's clients:  java Reuse.java httpclient|urlconnection URL ID-A ID-B CA-FILE COUNT
// The requests and answers are those of plan.py.

import java.io.FileInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.net.HttpURLConnection;
import java.net.URI;
import java.net.URL;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.security.KeyStore;
import java.security.MessageDigest;
import java.security.cert.CertificateFactory;
import java.util.Base64;
import java.util.HexFormat;
import javax.net.ssl.HttpsURLConnection;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;

class Reuse {
    record Answer(int status, String text) {}

    interface Client {
        Answer send(String method, String url, String authorization, byte[] body) throws Exception;
    }

    public static void main(String[] args) throws Exception {
        String url = args[1];
        SSLContext tls = trusting(args[4]);
        int count = Integer.parseInt(args[5]);
        Client client = args[0].equals("httpclient") ? httpClient(tls) : Reuse::urlConnection;
        HttpsURLConnection.setDefaultSSLSocketFactory(tls.getSocketFactory());
        int right = 0;
        for (int number = 0; number < count; number++) {
            int index = (number + number / 4) % 2;
            String name = index == 0 ? "a" : "b";
            String method = number / 2 % 2 == 0 ? "GET" : "POST";
            String target = "/" + name + "/" + number;
            byte[] body = method.equals("GET")
                ? new byte[0]
                : ("for-" + name + "-" + number + ";").repeat(1 + number % 7 * 500).getBytes(StandardCharsets.US_ASCII);
            String credentials = Base64.getEncoder().encodeToString((args[2 + index] + ":any").getBytes());
            String sum = HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(body));
            Answer wanted = new Answer(200, name + " " + method + " " + target + " " + body.length + " " + sum + "\n");
            Answer got;
            try {
                got = client.send(method, url + target, "Basic " + credentials, body);
            } catch (IOException error) {
                got = new Answer(0, error.toString());
            }
            if (got.equals(wanted)) {
                right++;
            } else {
                System.err.println("wrong: " + method + " " + target + ": " + got);
            }
        }
        System.out.println(right + " answered by their own hidden server");
        System.exit(right == count ? 0 : 1);
    }

    static SSLContext trusting(String file) throws Exception {
        KeyStore store = KeyStore.getInstance(KeyStore.getDefaultType());
        store.load(null);
        try (InputStream from = new FileInputStream(file)) {
            store.setCertificateEntry("relay", CertificateFactory.getInstance("X.509").generateCertificate(from));
        }
        TrustManagerFactory trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trust.init(store);
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(null, trust.getTrustManagers(), null);
        return context;
    }

    static Client httpClient(SSLContext tls) {
        HttpClient client = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).sslContext(tls).build();
        return (method, url, authorization, body) -> {
            HttpRequest.BodyPublisher publisher = body.length == 0
                ? HttpRequest.BodyPublishers.noBody()
                : HttpRequest.BodyPublishers.ofByteArray(body);
            HttpRequest request = HttpRequest.newBuilder(URI.create(url))
                .header("Authorization", authorization)
                .method(method, publisher)
                .build();
            HttpResponse<String> answer = client.send(request, HttpResponse.BodyHandlers.ofString());
            return new Answer(answer.statusCode(), answer.body());
        };
    }

    static Answer urlConnection(String method, String url, String authorization, byte[] body) throws IOException {
        HttpURLConnection connection = (HttpURLConnection) new URL(url).openConnection();
        connection.setRequestMethod(method);
        connection.setRequestProperty("Authorization", authorization);
        if (body.length > 0) {
            connection.setDoOutput(true);
            connection.getOutputStream().write(body);
        }
        int status = connection.getResponseCode();
        try (InputStream from = status < 400 ? connection.getInputStream() : connection.getErrorStream()) {
            return new Answer(status, new String(from.readAllBytes(), StandardCharsets.US_ASCII));
        }
    }
}
