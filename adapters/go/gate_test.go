package main

import (
	"os"
	"testing"
)

// Measures a check with the key in GO_TEST_KEY, of the gate in the file GO_TEST_GATE.
func BenchmarkCheck(b *testing.B) {
	gate, err := Open(os.Getenv("GO_TEST_GATE"), os.Getenv("KEYTALLY_PEPPER"))
	if err != nil {
		b.Fatal(err)
	}
	defer gate.Close()
	keys := []string{os.Getenv("GO_TEST_KEY")}
	b.ReportAllocs()
	for n := 0; n < b.N; n++ {
		decision, err := gate.Check(keys)
		if err != nil || !decision.Admitted {
			b.Fatal(decision.Status, err)
		}
	}
}
