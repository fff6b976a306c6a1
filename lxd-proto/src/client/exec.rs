//! Commands in an instance: the operation and the websockets of its streams.

use std::fmt;

use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use reqwest::Method;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;

use crate::client::LxdClient;
use crate::client::transport::Request;
use crate::client::websocket::Socket;
use crate::instance::exec::{Control, ExecMetadata, ExecPost, fd};
use crate::net::deepest;
use crate::operation::Operation;
use crate::remote::{Error, Result};
use crate::routes::{self, query};

/// Control messages that may wait for the connection.
const WAITING: usize = 16;

/// A command that runs in an instance. Dropping [`Execution::controls`] kills it.
#[derive(Debug)]
pub struct Execution {
    /// Wait for it; its metadata then has the exit status. See [`ExecMetadata`].
    pub operation: Operation,
    /// Its standard input; of an interactive command, what is typed.
    pub input: Input,
    /// Its standard output; of an interactive command, all that the terminal shows.
    pub output: Output,
    /// Its standard error; of an interactive command there is none.
    pub errors: Option<Output>,
    /// Signals and the size of the terminal.
    pub controls: Controls,
}

/// What goes into a command.
pub struct Input {
    sink: SplitSink<Socket, Message>,
    /// Of a socket that only takes: answers the server's pings while we write.
    answers: Option<SplitStream<Socket>>,
}

/// What comes out of a command.
pub struct Output {
    stream: SplitStream<Socket>,
    /// Held so that the socket stays whole.
    _sink: Option<SplitSink<Socket, Message>>,
    endpoint: String,
}

/// Takes signals and sizes for a command, and sends them when the connection can.
#[derive(Debug)]
pub struct Controls {
    sender: mpsc::Sender<Control>,
}

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Input").finish_non_exhaustive()
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Output").finish_non_exhaustive()
    }
}

impl LxdClient {
    /// Runs a command in an instance and connects its streams; what `body` says about websockets
    /// and recording does not count.
    pub async fn exec(&self, name: &str, body: &ExecPost) -> Result<Execution> {
        let body = ExecPost { wait_for_websocket: true, record_output: false, ..body.clone() };
        let request = Request::new(Method::POST, routes::INSTANCE_EXEC.url(&[name]));
        let operation = self.transport.tell(request, &body).await?.operation()?;
        let metadata = exec_metadata(&operation)?;
        // The order of LXD's own client: the command starts when the last one is there.
        let control = self.stream(&operation, &metadata, fd::CONTROL).await?;
        let stdin = self.stream(&operation, &metadata, fd::STDIN).await?;
        let controls = Controls::over(control);
        let (sink, stream) = stdin.split();
        if body.interactive {
            let input = Input { sink, answers: None };
            let output = self.output(stream, None);
            return Ok(Execution { operation, input, output, errors: None, controls });
        }
        let input = Input { sink, answers: Some(stream) };
        let (sink, stream) = self.stream(&operation, &metadata, fd::STDOUT).await?.split();
        let output = self.output(stream, Some(sink));
        let (sink, stream) = self.stream(&operation, &metadata, fd::STDERR).await?.split();
        let errors = Some(self.output(stream, Some(sink)));
        Ok(Execution { operation, input, output, errors, controls })
    }

    fn output(
        &self,
        stream: SplitStream<Socket>,
        sink: Option<SplitSink<Socket, Message>>,
    ) -> Output {
        Output { stream, _sink: sink, endpoint: self.transport.endpoint() }
    }

    async fn stream(
        &self,
        operation: &Operation,
        metadata: &ExecMetadata,
        fd: &str,
    ) -> Result<Socket> {
        let secret = metadata.fds.get(fd).ok_or_else(|| Error::Decode {
            what: "the streams of a command".to_owned(),
            reason: format!("the server offers no stream \"{fd}\""),
        })?;
        let request = Request::get(routes::OPERATION_WEBSOCKET.url(&[&operation.id]))
            .query(query::SECRET, secret.clone());
        self.websocket(&request).await
    }
}

/// What the operation of a command says about it.
///
/// # Errors
/// [`Error::Decode`] when it is the operation of something else.
pub fn exec_metadata(operation: &Operation) -> Result<ExecMetadata> {
    let metadata = operation.metadata.clone().unwrap_or_default();
    serde_json::from_value(metadata.into()).map_err(|error| Error::Decode {
        what: "the operation of a command".to_owned(),
        reason: error.to_string(),
    })
}

impl Input {
    /// Sends bytes. False when the command takes no more: it has ended, or has closed its input.
    pub async fn write(&mut self, bytes: Bytes) -> bool {
        let send = self.sink.send(Message::Binary(bytes));
        let Some(answers) = &mut self.answers else { return send.await.is_ok() };
        tokio::pin!(send);
        loop {
            tokio::select! {
                sent = &mut send => return sent.is_ok(),
                answer = answers.next() => match answer {
                    None | Some(Err(_) | Ok(Message::Close(_))) => return false,
                    Some(Ok(_)) => {}
                },
            }
        }
    }

    /// Keeps the stream open until the server closes it: a server may take an early close for the
    /// end of the client.
    pub async fn held(&mut self) {
        match &mut self.answers {
            Some(answers) => while let Some(Ok(_)) = answers.next().await {},
            None => std::future::pending().await,
        }
    }

    /// Nothing more comes: the command reads the end of its input.
    pub async fn end(&mut self) {
        // A command that has ended meanwhile needs no end of its input.
        let _ = self.sink.send(Message::Text(String::new().into())).await;
    }
}

impl Output {
    /// The next bytes; `None` when the command has closed this stream, or has ended.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            match self.stream.next().await {
                Some(Ok(Message::Binary(bytes))) => return Ok(Some(bytes)),
                // An empty text message is the end of the stream.
                None | Some(Ok(Message::Text(_) | Message::Close(_))) => return Ok(None),
                Some(Ok(_)) => {}
                Some(Err(error)) if is_end(&error) => return Ok(None),
                Some(Err(error)) => {
                    let (endpoint, reason) = (self.endpoint.clone(), deepest(&error));
                    return Err(Error::Transport { endpoint, reason });
                }
            }
        }
    }
}

/// LXD drops its side without a word when the command has ended.
fn is_end(error: &tokio_tungstenite::tungstenite::Error) -> bool {
    use tokio_tungstenite::tungstenite::Error as E;
    use tokio_tungstenite::tungstenite::error::ProtocolError;
    match error {
        E::ConnectionClosed
        | E::AlreadyClosed
        | E::Protocol(ProtocolError::ResetWithoutClosingHandshake) => true,
        E::Io(error) => matches!(
            error.kind(),
            std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::UnexpectedEof
        ),
        _ => false,
    }
}

impl Controls {
    /// Keeps `socket` open, answers its pings and sends what is told.
    fn over(mut socket: Socket) -> Self {
        let (sender, mut waiting) = mpsc::channel::<Control>(WAITING);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    control = waiting.recv() => {
                        let Some(control) = control else { break };
                        let Ok(text) = serde_json::to_string(&control.message()) else { continue };
                        if socket.send(Message::Text(text.into())).await.is_err() {
                            break;
                        }
                    }
                    message = socket.next() => match message {
                        None | Some(Err(_) | Ok(Message::Close(_))) => break,
                        Some(Ok(_)) => {}
                    },
                }
            }
        });
        Self { sender }
    }

    /// Sends a signal or a size. What comes too late for the command is lost.
    pub async fn send(&self, control: Control) {
        let _ = self.sender.send(control).await;
    }
}
