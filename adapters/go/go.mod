module github.com/keytally/keytally/adapters/go

go 1.19
