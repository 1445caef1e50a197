// Gets a page, by HTTP/2 if the server offers it:  go run get.go URL CA-FILE ADDRESS
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
)

func main() {
	roots := x509.NewCertPool()
	text, err := os.ReadFile(os.Args[2])
	if err != nil || !roots.AppendCertsFromPEM(text) {
		panic(err)
	}
	dial := func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, os.Args[3])
	}
	client := http.Client{Transport: &http.Transport{
		DialContext: dial, TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true,
	}}
	answer, err := client.Get(os.Args[1])
	if err != nil {
		panic(err)
	}
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		panic(err)
	}
	fmt.Printf("%s %s", answer.Proto, body)
}
