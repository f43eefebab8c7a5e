//go:build linux

// Try runs the CronJob of examples/kubernetes/mock without a cluster. It reads
// the manifests as kubectl would apply them, and plays the API server, the Job
// and the kubelet: what the pod's containers run is run as the manifests say,
// with the same arguments, environment, files and user. See ../try.sh.
//
//	kubectl kustomize ../mock | go run . -program keywright
//
// The program must be built with CGO_ENABLED=0.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

// secretName and secretKey are where the token is delivered to.
const (
	secretName = "billing-ricloud"
	secretKey  = "token"
)

func main() {
	program := flag.String("program", "keywright", "the `FILE` of the program")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	b, err := io.ReadAll(os.Stdin)
	if err == nil {
		err = try(ctx, os.Stdout, *program, b)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "try:", err)
		os.Exit(1)
	}
}

// try runs the CronJob twice.
func try(ctx context.Context, out io.Writer, program string, b []byte) (err error) {
	program, err = filepath.Abs(program)
	if err != nil {
		return err
	}
	address, err := freeAddress()
	if err != nil {
		return err
	}
	m, err := parse(listen(b, address))
	if err != nil {
		return err
	}
	api := startAPI(m)
	defer api.close()
	dir, err := os.MkdirTemp("", "keywright-node-")
	if err != nil {
		return err
	}
	n := &node{dir: dir, program: program, api: api, m: m, log: out}
	defer func() { err = errors.Join(err, n.remove()) }()

	for run := 1; run <= 2; run++ {
		before, err := api.token()
		if err != nil {
			return err
		}
		var accepted error
		n.finished = func() {
			token, err := api.token()
			if err == nil {
				err = ask("http://"+address, token)
			}
			accepted = err
		}
		fmt.Fprintf(out, "\n== the CronJob fires, for time %d\n", run)
		if _, err := n.job(ctx); err != nil {
			return err
		}
		after, err := api.token()
		switch {
		case err != nil:
			return err
		case accepted != nil:
			return accepted
		case before == after:
			return errors.New("the Secret holds the token that it held before")
		}
		fmt.Fprintf(out, "== the Secret %s has another token, and the provider accepts it\n", secretName)
	}
	return nil
}

// freeAddress returns an address on which nobody listens.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// ask asks ricloud whether it accepts a token.
func ask(url, token string) error {
	r, err := http.NewRequest(http.MethodGet, url+"/key", nil)
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Token "+token)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errors.New("the provider does not accept the token: " + resp.Status)
	}
	return nil
}
