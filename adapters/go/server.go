// An HTTP server that checks each request's API key: GET /api/v1/contacts.
//
//	go build -o server . && KEYTALLY_PEPPER=... ./server api.gate 8080
//
// It needs libkeytally, its header, and pkg-config. Create the gate and its keys with the command
// line (`keytally create`, `keytally issue`). A change there, such as a revocation, holds for the
// next request.
package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintf(os.Stderr, "usage: KEYTALLY_PEPPER=... %s GATE PORT\n", os.Args[0])
		os.Exit(2)
	}
	gate, err := Open(os.Args[1], os.Getenv("KEYTALLY_PEPPER"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:"+os.Args[2])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Printf("http://%s/api/v1/contacts\n", listener.Addr())
	server := &http.Server{Handler: gate.Protect(http.HandlerFunc(contacts))}
	go server.Serve(listener)
	io.Copy(io.Discard, os.Stdin) // Until standard input ends.
	server.Close()
	gate.Close()
}

// The application begins here.
func contacts(response http.ResponseWriter, request *http.Request) {
	switch {
	case request.URL.Path != "/api/v1/contacts":
		response.WriteHeader(http.StatusNotFound)
		fmt.Fprint(response, `{"error": "Not found"}`)
	case request.Method != http.MethodGet:
		response.WriteHeader(http.StatusMethodNotAllowed)
		fmt.Fprint(response, `{"error": "Not found"}`)
	default:
		fmt.Fprint(response, `{"contacts": [{"name": "Ada"}, {"name": "Grace"}]}`)
	}
}
