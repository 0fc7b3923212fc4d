// A program on the published Go SDK that acts as agent and as dialer. Its first argument says what to do:
// `publish` serves HTTP through a tunnel, `dial` dials a private tunnel in every way, `stall` opens a tunnel after a pause.
package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	rstream "github.com/rstreamlabs/rstream-go"
)

// How long any one step may take.
const patience = 15 * time.Second

// How many dialers go at once.
const dialers = 16

func client(zeroRTT bool) (*rstream.Client, error) {
	pem, err := os.ReadFile(os.Getenv("GOSDK_CA"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, errors.New("no certificate in GOSDK_CA")
	}
	return rstream.NewClient(rstream.ClientOptions{
		Engine:          os.Getenv("GOSDK_ENGINE"),
		Token:           os.Getenv("GOSDK_TOKEN"),
		TLSClientConfig: &tls.Config{RootCAs: roots},
		ZeroRTT:         &zeroRTT,
	})
}

// open connects with a heartbeat of one second.
func open(ctx context.Context) (rstream.ControlChannel, error) {
	agent, err := client(false)
	if err != nil {
		return nil, err
	}
	interval := time.Second
	return agent.Connect(ctx, &rstream.Config{HeartbeatInterval: &interval})
}

// private opens a private tunnel that gives every byte back.
func private(ctx context.Context, control rstream.ControlChannel, name string) (string, error) {
	created, err := control.CreateTunnel(ctx, rstream.TunnelProperties{
		Name:    &name,
		Type:    rstream.TunnelTypePtr(rstream.TunnelTypeBytestream),
		Publish: rstream.BoolPtr(false),
	})
	if err != nil {
		return "", err
	}
	tunnel, ok := created.(rstream.BytestreamTunnel)
	if !ok {
		return "", fmt.Errorf("the tunnel is a %T", created)
	}
	go func() {
		for {
			conn, err := tunnel.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = io.Copy(conn, conn)
			}()
		}
	}()
	properties, err := tunnel.Properties()
	if err != nil || properties.ID == nil {
		return "", fmt.Errorf("the tunnel has no id: %v", err)
	}
	return *properties.ID, nil
}

func echo(ctx context.Context, target string, zeroRTT bool, text []byte) error {
	dialer, err := client(zeroRTT)
	if err != nil {
		return err
	}
	defer dialer.Close()
	conn, err := dialer.Dial(ctx, rstream.Addr{IdOrName: target})
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := conn.Write(text); err != nil {
		return err
	}
	back := make([]byte, len(text))
	if _, err := io.ReadFull(conn, back); err != nil {
		return err
	}
	if !bytes.Equal(back, text) {
		return fmt.Errorf("other bytes came back: %q", back)
	}
	return nil
}

func publish(ctx context.Context) error {
	control, err := open(ctx)
	if err != nil {
		return err
	}
	defer control.Close()
	tunnel, err := control.CreateTunnel(ctx, rstream.TunnelProperties{Publish: rstream.BoolPtr(true)})
	if err != nil {
		return err
	}
	address, err := tunnel.ForwardingAddress()
	if err != nil {
		return err
	}
	listener, ok := tunnel.(net.Listener)
	if !ok {
		return fmt.Errorf("the tunnel is a %T", tunnel)
	}
	if err := json.NewEncoder(os.Stdout).Encode(map[string]string{"forwarding": address}); err != nil {
		return err
	}
	return http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "go saw %s", r.URL.Path)
	}))
}

func dial(ctx context.Context) error {
	control, err := open(ctx)
	if err != nil {
		return err
	}
	defer control.Close()
	id, err := private(ctx, control, "go-private")
	if err != nil {
		return err
	}
	for _, target := range []string{"go-private", id} {
		for _, zeroRTT := range []bool{false, true} {
			if err := echo(ctx, target, zeroRTT, []byte(fmt.Sprintf("%s %t", target, zeroRTT))); err != nil {
				return fmt.Errorf("dialling %s with zero_rtt %t: %w", target, zeroRTT, err)
			}
		}
	}
	results := make(chan error, dialers)
	for number := range dialers {
		go func() {
			results <- echo(ctx, id, number%2 == 0, bytes.Repeat([]byte{byte('a' + number)}, 10_000))
		}()
	}
	for range dialers {
		if err := <-results; err != nil {
			return fmt.Errorf("one of %d dialers: %w", dialers, err)
		}
	}
	return nil
}

func stall(ctx context.Context) error {
	control, err := open(ctx)
	if err != nil {
		return err
	}
	defer control.Close()
	fmt.Println("connected")
	select {
	case err := <-control.Done():
		return fmt.Errorf("the control channel ended in the stall: %w", err)
	case <-time.After(6 * time.Second):
	}
	if _, err := private(ctx, control, "go-after-stall"); err != nil {
		return err
	}
	if err := echo(ctx, "go-after-stall", false, []byte("after the stall")); err != nil {
		return err
	}
	fmt.Println("echoed")
	return nil
}

func main() {
	modes := map[string]func(context.Context) error{"publish": publish, "dial": dial, "stall": stall}
	if len(os.Args) != 2 || modes[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: gosdk publish|dial|stall")
		os.Exit(2)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := modes[os.Args[1]](ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
