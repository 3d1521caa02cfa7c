//! Commands, files and ports of fake VMs, over the agent's API.

use std::time::Duration;

use batwa_agent::FakeSettings;
use batwa_api::file::header;
use futures_util::{SinkExt, StreamExt, stream};
use reqwest::{Body, Method, StatusCode};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::timeout,
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{self, Message, client::IntoClientRequest},
};

use crate::lab::{DEADLINE, Lab, answer};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

fn four() -> FakeSettings {
    FakeSettings {
        vms: 4,
        ..FakeSettings::instant()
    }
}

async fn connect(lab: &Lab, path: &str) -> Result<Socket, tungstenite::Error> {
    let request = format!("ws://{}{path}", lab.address).into_client_request()?;
    let (socket, _) = timeout(DEADLINE, connect_async(request)).await.unwrap()?;
    Ok(socket)
}

/// The lines that a command says when it is run by one call.
async fn run(lab: &Lab, body: Value) -> Vec<Value> {
    let answer = lab.post("/api/v1/vms/demo-01/exec", body).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    assert_eq!(answer.content_type, "application/x-ndjson");
    // One line alone is JSON already.
    match answer.body {
        Value::String(text) => text
            .lines()
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_str(line).unwrap())
            .collect(),
        line => vec![line],
    }
}

#[tokio::test]
async fn one_call_runs_a_command_and_answers_lines() {
    let lab = Lab::new(four()).await;
    let lines = run(
        &lab,
        json!({"argv": ["sh", "-c", "cat; echo $A >&2; exit 3"], "env": {"A": "b"}, "stdin": "grüße\n"}),
    )
    .await;
    let of =
        |kind: &str| -> Vec<&Value> { lines.iter().filter(|line| line["type"] == kind).collect() };
    assert_eq!(of("stdout")[0]["text"], "grüße\n");
    assert_eq!(of("stderr")[0]["text"], "b\n");
    let last = lines.last().unwrap();
    assert_eq!(
        *last,
        json!({"type": "exit", "code": 3, "signal": null, "reason": "it ended"})
    );

    let lines = run(&lab, json!({"argv": ["cat"], "stdin_base64": "/wA="})).await;
    assert_eq!(lines[0], json!({"type": "stdout", "base64": "/wA="}));
    let lines = run(&lab, json!({"argv": ["sleep", "1000"], "timeout_s": 1})).await;
    assert_eq!(lines[0]["code"], 124, "{lines:?}");
}

#[tokio::test]
async fn what_cannot_be_run_is_refused_with_its_field_or_state() {
    let lab = Lab::new(four()).await;
    let refused = async |vm: &str, body: Value| {
        let answer = lab.post(&format!("/api/v1/vms/{vm}/exec"), body).await;
        (
            answer.status.as_u16(),
            answer.body["code"].as_str().unwrap().to_owned(),
        )
    };
    let ls = json!({"argv": ["ls"]});
    // The fourth is stopped, and stays so.
    assert_eq!(
        refused("demo-04", ls.clone()).await,
        (409, "illegal_state".into())
    );
    lab.vm_when("demo-04", |vm| vm["state"] == "stopped").await;
    assert_eq!(refused("nothing", ls).await, (404, "not_found".into()));
    let field = (422, "invalid_field".into());
    assert_eq!(refused("demo-01", json!({"argv": []})).await, field);
    assert_eq!(
        refused(
            "demo-01",
            json!({"argv": ["ls"], "tty": {"cols": 1, "rows": 1}})
        )
        .await,
        field
    );
    assert_eq!(
        refused("demo-01", json!({"argv": ["ls"], "stdin_base64": "?"})).await,
        field
    );
    assert_eq!(
        refused("demo-01", json!({"argv": ["ls"], "cwd": "/no/such"})).await,
        field
    );
}

/// Frames until the connection ends: output by stream, and what was said.
async fn hear(socket: &mut Socket) -> (Vec<u8>, Vec<u8>, Vec<Value>) {
    let (mut out, mut err, mut said) = (Vec::new(), Vec::new(), Vec::new());
    while let Some(Ok(message)) = timeout(DEADLINE, socket.next()).await.unwrap() {
        match message {
            Message::Binary(bytes) if bytes[0] == 1 => out.extend_from_slice(&bytes[1..]),
            Message::Binary(bytes) => err.extend_from_slice(&bytes[1..]),
            Message::Text(text) => said.push(serde_json::from_str(&text).unwrap()),
            Message::Close(_) => break,
            _ => {}
        }
    }
    (out, err, said)
}

async fn say(socket: &mut Socket, frame: Value) {
    socket
        .send(Message::Text(frame.to_string().into()))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_websocket_has_input_and_the_end_comes_last() {
    let lab = Lab::new(four()).await;
    let mut socket = connect(&lab, "/api/v1/vms/demo-01/exec").await.unwrap();
    say(
        &mut socket,
        json!({"type": "start", "argv": ["sh", "-c", "cat; echo done >&2; exit 5"]}),
    )
    .await;
    for word in [&b"\x00one "[..], b"\x00two"] {
        socket
            .send(Message::Binary(word.to_vec().into()))
            .await
            .unwrap();
    }
    say(&mut socket, json!({"type": "eof"})).await;
    let (out, err, said) = hear(&mut socket).await;
    assert_eq!((&out[..], &err[..]), (&b"one two"[..], &b"done\n"[..]));
    assert_eq!(said[0], json!({"type": "started"}));
    assert_eq!(said[1]["code"], 5);

    let mut wrong = connect(&lab, "/api/v1/vms/demo-01/exec").await.unwrap();
    say(&mut wrong, json!({"type": "eof"})).await;
    let (_, _, said) = hear(&mut wrong).await;
    assert_eq!(said[0]["code"], "malformed");
    let mut stopped = connect(&lab, "/api/v1/vms/demo-04/exec").await.unwrap();
    say(&mut stopped, json!({"type": "start", "argv": ["ls"]})).await;
    let (_, _, said) = hear(&mut stopped).await;
    assert_eq!(said[0]["code"], "illegal_state");
}

#[tokio::test]
async fn a_command_with_a_terminal_hears_its_size() {
    let lab = Lab::new(four()).await;
    let mut socket = connect(&lab, "/api/v1/vms/demo-01/exec").await.unwrap();
    let wait = "until [ \"$(stty size)\" = '50 132' ]; do sleep 0.05; done; echo now";
    say(
        &mut socket,
        json!({"type": "start", "argv": ["sh", "-c", wait], "tty": {"cols": 80, "rows": 24}}),
    )
    .await;
    say(
        &mut socket,
        json!({"type": "resize", "cols": 132, "rows": 50}),
    )
    .await;
    let (out, _, said) = hear(&mut socket).await;
    assert!(String::from_utf8_lossy(&out).contains("now"));
    assert_eq!(said.last().unwrap()["code"], 0);
}

/// A file of an agent's VM.
struct File<'a> {
    lab: &'a Lab,
    query: String,
}

impl File<'_> {
    fn request(&self, method: Method) -> reqwest::RequestBuilder {
        let url = self
            .lab
            .url(&format!("/api/v1/vms/demo-01/files?{}", self.query));
        self.lab.http.request(method, url)
    }
}

fn file<'a>(lab: &'a Lab, query: &str) -> File<'a> {
    File {
        lab,
        query: query.to_owned(),
    }
}

fn bytes(count: u32) -> Vec<u8> {
    (0..count).map(|i| (i * 31 % 251) as u8).collect()
}

#[tokio::test]
async fn a_file_goes_in_and_comes_out_with_mode_and_checksum() {
    let lab = Lab::new(four()).await;
    let content = bytes(3 << 20);
    let target = file(&lab, "path=/srv/data.bin&parents=true&mode=640");
    let put = answer(target.request(Method::PUT).body(content.clone())).await;
    assert_eq!(put.status, StatusCode::OK, "{}", put.body);
    assert_eq!(put.body["size"], content.len());

    let got = target
        .request(Method::GET)
        .header(header::WANT_DIGEST, "sha-256=1")
        .send()
        .await
        .unwrap();
    assert_eq!(got.headers()[header::MODE], "640");
    let digest = got.headers()[header::DIGEST].to_str().unwrap().to_owned();
    let tag = got.headers()["etag"].clone();
    assert_eq!(got.content_length(), Some(content.len() as u64));
    assert!(got.bytes().await.unwrap() == content);

    // The same checksum the other way round lets it in; another does not, and leaves the file as it was.
    let again = target.request(Method::PUT).header(header::DIGEST, &digest);
    assert_eq!(
        answer(again.body(content.clone())).await.status,
        StatusCode::OK
    );
    let other = target.request(Method::PUT).header(header::DIGEST, &digest);
    let refused = answer(other.body("something else")).await;
    assert_eq!(refused.status, StatusCode::CONFLICT, "{}", refused.body);
    let head = target.request(Method::HEAD).send().await.unwrap();
    assert_eq!(head.headers()["content-length"], content.len().to_string());
    let left = run(&lab, json!({"argv": ["ls", "-A", "srv"]})).await;
    assert_eq!(left[0]["text"], "data.bin\n", "no part is left");

    let rest = target.request(Method::GET).header("range", "bytes=1000-");
    let rest = rest.header("if-range", tag).send().await.unwrap();
    // It was written again meanwhile: from the beginning.
    assert_eq!(rest.status(), StatusCode::OK);
    let tag = rest.headers()["etag"].clone();
    let rest = target.request(Method::GET).header("range", "bytes=1000-");
    let rest = rest.header("if-range", tag).send().await.unwrap();
    assert_eq!(rest.status(), StatusCode::PARTIAL_CONTENT);
    assert_eq!(
        rest.headers()["content-range"],
        format!("bytes 1000-{}/{}", content.len() - 1, content.len())
    );
    assert!(rest.bytes().await.unwrap() == content[1000..]);
}

#[tokio::test]
async fn an_upload_that_was_cut_off_is_gone_on_with() {
    let lab = Lab::new(four()).await;
    let content = bytes(1 << 20);
    let target = file(&lab, "path=big&upload=upload-0001");
    let range = |from: usize| format!("bytes {from}-{}/{}", content.len() - 1, content.len());
    // A body that breaks in the middle.
    let half = content[..content.len() / 2].to_vec();
    let pieces = stream::iter([Ok(half), Err(std::io::Error::other("cut"))]);
    let broken = target
        .request(Method::PUT)
        .header("content-range", range(0));
    assert!(broken.body(Body::wrap_stream(pieces)).send().await.is_err());

    let offset = async || -> usize {
        let head = target.request(Method::HEAD).send().await.unwrap();
        assert_eq!(head.status(), StatusCode::OK);
        head.headers()[header::UPLOAD_OFFSET]
            .to_str()
            .unwrap()
            .parse()
            .unwrap()
    };
    // The agent may hear of the cut later than its caller.
    let held = timeout(DEADLINE, async {
        loop {
            let held = offset().await;
            if held > 0 {
                return held;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("what came before the cut");
    assert!(held <= content.len() / 2, "{held}");
    let look = file(&lab, "path=big")
        .request(Method::HEAD)
        .send()
        .await
        .unwrap();
    assert_eq!(
        look.status(),
        StatusCode::NOT_FOUND,
        "nobody sees half of it"
    );

    let wrong = target
        .request(Method::PUT)
        .header("content-range", range(held + 1));
    let wrong = answer(wrong.body(content[held + 1..].to_vec())).await;
    assert_eq!(
        wrong.status,
        StatusCode::RANGE_NOT_SATISFIABLE,
        "{}",
        wrong.body
    );
    assert_eq!(offset().await, held);

    let rest = target
        .request(Method::PUT)
        .header("content-range", range(held));
    let whole = answer(rest.body(content[held..].to_vec())).await;
    assert_eq!(whole.status, StatusCode::OK, "{}", whole.body);
    let got = file(&lab, "path=big")
        .request(Method::GET)
        .send()
        .await
        .unwrap();
    assert!(got.bytes().await.unwrap() == content);
    assert_eq!(offset().await, 0);
}

#[tokio::test]
async fn folders_move_as_tar() {
    let lab = Lab::new(four()).await;
    run(
        &lab,
        json!({"argv": ["sh", "-c", "mkdir -p site/a && echo hi >site/a/x && chmod 751 site/a/x"]}),
    )
    .await;
    let tar = file(&lab, "path=site&archive=tar")
        .request(Method::GET)
        .send()
        .await
        .unwrap();
    assert_eq!(tar.headers()["content-type"], "application/x-tar");
    let tar = tar.bytes().await.unwrap();
    let put = answer(
        file(&lab, "path=copy&archive=tar")
            .request(Method::PUT)
            .body(tar),
    )
    .await;
    assert_eq!(put.status, StatusCode::OK, "{}", put.body);
    let lines = run(
        &lab,
        json!({"argv": ["sh", "-c", "cat copy/a/x; stat -c %a copy/a/x"]}),
    )
    .await;
    let text: String = lines
        .iter()
        .filter_map(|line| line["text"].as_str())
        .collect();
    assert_eq!(text, "hi\n751\n");
    let bad = answer(
        file(&lab, "path=bad&archive=tar")
            .request(Method::PUT)
            .body("no tar at all"),
    )
    .await;
    assert_eq!(bad.status, StatusCode::BAD_GATEWAY, "{}", bad.body);
}

#[tokio::test]
async fn each_failure_of_a_transfer_says_what_it_is() {
    let lab = Lab::new(four()).await;
    run(
        &lab,
        json!({"argv": ["sh", "-c", "mkdir d; ln -s /etc out; mkfifo pipe"]}),
    )
    .await;
    let status = async |method: Method, query: &str| {
        let answer = answer(file(&lab, query).request(method).body("x")).await;
        let code = answer.body["code"].as_str().unwrap_or_default().to_owned();
        (answer.status.as_u16(), code)
    };
    let get = async |query: &str| status(Method::GET, query).await;
    let put = async |query: &str| status(Method::PUT, query).await;
    assert_eq!(get("path=nothing").await, (404, "not_found".into()));
    assert_eq!(get("path=d").await, (422, "invalid_field".into()));
    assert_eq!(
        get("path=d/../nothing&archive=tar").await,
        (404, "not_found".into())
    );
    assert_eq!(get("path=pipe").await, (422, "invalid_field".into()));
    assert_eq!(get("").await, (422, "invalid_field".into()));
    assert_eq!(
        get("path=d&archive=zip").await,
        (422, "invalid_field".into())
    );
    assert_eq!(put("path=d").await, (422, "invalid_field".into()));
    assert_eq!(put("path=e/f").await, (404, "not_found".into()));
    assert_eq!(put("path=x&mode=999").await, (422, "invalid_field".into()));
    assert_eq!(
        put("path=x&upload=no/path").await,
        (422, "invalid_field".into())
    );
    // Its home is all of the machine that a fake VM has.
    for out in ["path=out/passwd", "path=../x", "path=/../../x"] {
        assert_eq!(get(out).await, (422, "invalid_field".into()), "{out}");
        assert_eq!(put(out).await, (422, "invalid_field".into()), "{out}");
    }
}

/// Answers each connection with what it was sent, turned to capitals, after its end.
async fn shouter() -> (u16, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut all = Vec::new();
            stream.read_to_end(&mut all).await.unwrap();
            stream.write_all(&all.to_ascii_uppercase()).await.unwrap();
        }
    });
    (port, tasks)
}

#[tokio::test]
async fn a_port_is_a_stream_whose_ends_are_told_apart() {
    let lab = Lab::new(FakeSettings {
        host_ports: true,
        ..four()
    })
    .await;
    let (port, _shouter) = shouter().await;
    let path = format!("/api/v1/vms/demo-01/ports/{port}");
    let mut socket = connect(&lab, &path).await.unwrap();
    let words = vec![b'x'; 100_000];
    socket
        .send(Message::Binary(words.clone().into()))
        .await
        .unwrap();
    say(&mut socket, json!({"type": "eof"})).await;
    let (mut heard, mut ended) = (Vec::new(), false);
    while let Some(Ok(message)) = timeout(DEADLINE, socket.next()).await.unwrap() {
        match message {
            Message::Binary(bytes) => heard.extend_from_slice(&bytes),
            Message::Text(text) => {
                ended = serde_json::from_str::<Value>(&text).unwrap() == json!({"type": "eof"});
            }
            Message::Close(_) => break,
            _ => {}
        }
    }
    assert!(
        ended && heard == words.to_ascii_uppercase(),
        "{}",
        heard.len()
    );
}

#[tokio::test]
async fn a_port_where_nobody_listens_is_refused_before_the_upgrade() {
    let refused = async |lab: &Lab, path: &str| match connect(lab, path).await {
        Err(tungstenite::Error::Http(response)) => response.status().as_u16(),
        other => panic!("{other:?}"),
    };
    let lab = Lab::new(FakeSettings {
        host_ports: true,
        ..four()
    })
    .await;
    let free = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    assert_eq!(
        refused(&lab, &format!("/api/v1/vms/demo-01/ports/{free}")).await,
        502
    );
    assert_eq!(refused(&lab, "/api/v1/vms/demo-01/ports/0").await, 404);
    assert_eq!(refused(&lab, "/api/v1/vms/demo-04/ports/80").await, 409);
    // Without the setting, a fake VM has none.
    let lab = Lab::new(four()).await;
    assert_eq!(refused(&lab, "/api/v1/vms/demo-01/ports/80").await, 422);
}

#[tokio::test]
async fn there_is_an_end_to_how_many_are_inside() {
    let lab = Lab::with(four(), |config| config.limits.inside = 1).await;
    let mut socket = connect(&lab, "/api/v1/vms/demo-01/exec").await.unwrap();
    say(&mut socket, json!({"type": "start", "argv": ["cat"]})).await;
    let started = timeout(DEADLINE, socket.next())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert!(started.is_text());
    let exec = async || {
        lab.post("/api/v1/vms/demo-01/exec", json!({"argv": ["true"]}))
            .await
            .status
    };
    assert_eq!(exec().await, StatusCode::TOO_MANY_REQUESTS);
    drop(socket);
    timeout(DEADLINE, async {
        while exec().await != StatusCode::OK {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("a place that is free again");
}
