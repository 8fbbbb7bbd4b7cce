package main

/*
#cgo pkg-config: keytally
#include <keytally.h>
#include <stdlib.h>

// What a request gets, with the header fields as lines.
typedef struct {
	kt_status status;
	int is_admitted;
	int http_status;
	const char *body;
	uint32_t account;
	size_t headers_len;
	char headers[KT_COMPOUND_HEADERS_SIZE];
} decision;

// Decides in one call from Go, because each costs about as much as half of the check.
static void decide(kt_gate *gate, const char *api_key, size_t len, int count, decision *out) {
	if (count > 1) {
		kt_verdict verdict;
		out->status = kt_verdict_duplicate_header(KT_SYSTEM_CLOCK, &verdict);
		if (out->status != KT_OK) return;
		out->is_admitted = 0;
		out->http_status = verdict.http_status;
		out->body = kt_verdict_body(&verdict);
		out->status =
			kt_verdict_headers(&verdict, out->headers, sizeof out->headers, &out->headers_len);
		return;
	}
	kt_compound compound;
	const char *present = api_key == NULL ? "" : api_key;
	const uint8_t *key = count == 0 ? NULL : (const uint8_t *)present;
	out->status = kt_gate_check_request(gate, key, len, NULL, &compound);
	if (out->status != KT_OK) return;
	out->is_admitted = compound.outcome == KT_ADMITTED;
	out->http_status = compound.http_status;
	out->body = kt_compound_body(&compound);
	out->account = compound.account;
	out->status =
		kt_compound_headers(&compound, out->headers, sizeof out->headers, &out->headers_len);
}
*/
import "C"

import (
	"errors"
	"net/http"
	"strings"
	"sync"
	"unsafe"
)

// Memory that C writes decisions to. A decision is larger than what Go keeps on a stack.
var decisions = sync.Pool{New: func() any { return new(C.decision) }}

// Gate is a table of API keys in a file. Any number of goroutines may use it.
type Gate struct {
	handle *C.kt_gate
}

// Decision is what a request gets.
type Decision struct {
	// Admitted is whether the request is admitted and charged.
	Admitted bool
	// Status is the status of a refusal, such as 401 or 429.
	Status int
	// Body is the body of a refusal, as JSON.
	Body string
	// Account is the account (team) of the key.
	Account uint32
	// headers are the header fields of every response, as lines.
	headers string
}

// Open opens the gate at path with these peppers, as in KEYTALLY_PEPPER.
func Open(path, peppers string) (*Gate, error) {
	file, secret := C.CString(path), C.CString(peppers)
	defer C.free(unsafe.Pointer(file))
	defer C.free(unsafe.Pointer(secret))
	gate := &Gate{}
	status := C.kt_gate_open(file, secret, C.size_t(len(peppers)), &gate.handle)
	if status != C.KT_OK {
		return nil, errors.New(path + ": " + C.GoString(C.kt_status_message(status)))
	}
	return gate, nil
}

// Close closes the gate. No goroutine may use it then.
func (gate *Gate) Close() {
	C.kt_gate_close(gate.handle)
}

// Check decides on a request with these values of X-API-Key, and charges it if it is admitted. More
// than one value is invalid, because another server of the chain might read another one.
func (gate *Gate) Check(keys []string) (Decision, error) {
	var first []byte
	if len(keys) > 0 {
		first = []byte(keys[0])
	}
	var text *C.char
	if len(first) > 0 {
		text = (*C.char)(unsafe.Pointer(&first[0]))
	}
	out := decisions.Get().(*C.decision)
	defer decisions.Put(out)
	C.decide(gate.handle, text, C.size_t(len(first)), C.int(len(keys)), out)
	if out.status != C.KT_OK {
		return Decision{}, errors.New(C.GoString(C.kt_status_message(out.status)))
	}
	return Decision{
		Admitted: out.is_admitted != 0,
		Status:   int(out.http_status),
		Body:     C.GoString(out.body),
		Account:  uint32(out.account),
		headers:  C.GoStringN(&out.headers[0], C.int(out.headers_len)),
	}, nil
}

// WriteHeaders adds the header fields of the decision, in their letter case.
func (decision Decision) WriteHeaders(header http.Header) {
	for _, line := range strings.Split(decision.headers, "\r\n") {
		if name, value, found := strings.Cut(line, ": "); found {
			header[name] = []string{value}
		}
	}
}

// Protect lets only admitted requests reach the next handler.
func (gate *Gate) Protect(next http.Handler) http.Handler {
	return http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
		response.Header().Set("Content-Type", "application/json")
		decision, err := gate.Check(request.Header.Values("X-API-Key"))
		if err != nil {
			response.WriteHeader(http.StatusInternalServerError)
			response.Write([]byte(`{"error": "Internal server error"}`))
			return
		}
		decision.WriteHeaders(response.Header())
		if !decision.Admitted {
			response.WriteHeader(decision.Status)
			response.Write([]byte(decision.Body))
			return
		}
		next.ServeHTTP(response, request)
	})
}
