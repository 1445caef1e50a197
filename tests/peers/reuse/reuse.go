// Go's net/http:  go run reuse.go URL ID-A ID-B CA-FILE COUNT
// The requests and answers are those of plan.py.
package main

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

func main() {
	url, ids := os.Args[1], os.Args[2:4]
	count, err := strconv.Atoi(os.Args[5])
	check(err)
	pem, err := os.ReadFile(os.Args[4])
	check(err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	client := &http.Client{
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, MaxConnsPerHost: 1},
		Timeout:   60 * time.Second,
	}
	right := 0
	for number := 0; number < count; number++ {
		index := (number + number/4) % 2
		name := "ab"[index : index+1]
		target := fmt.Sprintf("/%s/%d", name, number)
		method, body := "GET", []byte{}
		if number/2%2 == 1 {
			method = "POST"
			body = []byte(strings.Repeat(fmt.Sprintf("for-%s-%d;", name, number), 1+number%7*500))
		}
		wanted := fmt.Sprintf("200 %s %s %s %d %x\n", name, method, target, len(body), sha256.Sum256(body))
		got := ask(client, method, url+target, ids[index], body)
		if got == wanted {
			right++
		} else {
			fmt.Fprintf(os.Stderr, "wrong: %s %s: %q\n", method, target, got)
		}
	}
	fmt.Printf("%d answered by their own hidden server\n", right)
	if right != count {
		os.Exit(1)
	}
}

func ask(client *http.Client, method, url, id string, body []byte) string {
	// Without a body of its own type, net/http would send a GET with `Transfer-Encoding: chunked`.
	var from io.Reader
	if len(body) > 0 {
		from = bytes.NewReader(body)
	}
	request, err := http.NewRequest(method, url, from)
	check(err)
	request.SetBasicAuth(id, "any")
	answer, err := client.Do(request)
	if err != nil {
		return err.Error()
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%d %s", answer.StatusCode, text)
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
