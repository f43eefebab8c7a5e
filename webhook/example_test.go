package webhook_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"time"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/keywrighttest"
	"github.com/keywright/keywright/webhook"
)

func ExampleVerifier_Verify() {
	secret := keywright.NewSecret("8ad2e2b1c5f34a0f9a1f") // of the webhook config
	verifier, err := webhook.NewVerifier([]keywright.Secret{secret})
	if err != nil {
		fmt.Println(err)
		return
	}
	body := []byte(`{"id":"c1c7b0d2-52a4-4f0e-9d0e-1fd4f9b2a7e3","type":"session","action":"expired","data":{}}`)
	header := http.Header{webhook.Header: {webhook.Sign(secret, time.Now(), body)}} // as ricloud does

	event, err := verifier.Verify(header, body)
	fmt.Println(event.Slug(), err)

	_, err = verifier.Verify(header, append(body, ' '))
	fmt.Println(errors.Is(err, webhook.ErrSignatureMismatch), err)
	// Output:
	// session.expired <nil>
	// true webhook: no secret matches the signature
}

func ExampleHandler() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	secret := keywright.NewSecret("8ad2e2b1c5f34a0f9a1f")

	verifier, err := webhook.NewVerifier([]keywright.Secret{secret})
	if err != nil {
		fmt.Println(err)
		return
	}
	inbox := webhook.NewFileStore(dir + "/events")
	handler := webhook.Handler(verifier, inbox.Accept, webhook.WithStore(inbox))

	body := []byte(`{"id":"c1c7b0d2-52a4-4f0e-9d0e-1fd4f9b2a7e3","type":"session","action":"expired","data":{}}`)
	for range 2 { // the second time it is a duplicate
		r := httptest.NewRequest("POST", "/hooks/c1c7b0d2-52a4-4f0e-9d0e-1fd4f9b2a7e3", bytes.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set(webhook.Header, webhook.Sign(secret, time.Now(), body))
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		fmt.Println(w.Code)
	}

	ctx, stop := context.WithCancel(context.Background())
	err = inbox.Process(ctx, func(ctx context.Context, e *webhook.Event) error {
		fmt.Println("processed", e.Slug())
		stop() // in this example; a program goes on
		return nil
	})
	fmt.Println(err)
	// Output:
	// 204
	// 204
	// processed session.expired
	// context canceled
}

func ExampleRegister() {
	ricloud, err := keywrighttest.NewRicloud()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer ricloud.Close()
	rc, err := keywright.NewRicloud(keywright.WithoutEnvironment(),
		keywright.WithBaseURL(ricloud.URL()), keywright.WithToken(ricloud.Token()))
	if err != nil {
		fmt.Println(err)
		return
	}
	mux := http.NewServeMux()
	server := httptest.NewServer(mux)
	defer server.Close()
	ctx := context.Background()

	reg, err := webhook.Register(ctx, rc, server.URL+"/hooks")
	if err != nil {
		fmt.Println(err)
		return
	}
	print := func(ctx context.Context, e *webhook.Event) error {
		if e.Type == "session" {
			fmt.Println(e.Slug())
		}
		return nil
	}
	mux.Handle("/hooks/", webhook.Handler(reg.Verifier(), print))
	if err := reg.Activate(ctx); err != nil { // the server must be answering
		fmt.Println(err)
		return
	}

	id := ricloud.Emit("session", "expired", nil)
	state, err := ricloud.WaitDelivered(ctx, id)
	fmt.Println(state, err)
	fmt.Println(reg.Close(ctx))
	// Output:
	// session.expired
	// delivered <nil>
	// <nil>
}
